import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.training.loss import bce, mse, weighted_bce


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**31), size=st.integers(1, 20))
def test_losses_equal_their_formulas(seed, size):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(size, generator=generator, dtype=torch.float64) * 3
    y = torch.randint(0, 2, (size,), generator=generator).double()
    p = 1 / (1 + torch.exp(-z))
    per_sample = -(y * p.log() + (1 - y) * (1 - p).log())
    torch.testing.assert_close(bce(z, y), per_sample.mean())
    weights = torch.where(y == 1, 0.7, 0.3).double()
    torch.testing.assert_close(weighted_bce(z, y, (0.3, 0.7)), (weights * per_sample).mean())
    torch.testing.assert_close(mse(p, y), ((p - y) ** 2).mean())
    # Of several labels each counts, and a sample as often as it weighs.
    z2, y2 = torch.stack([z, -z], dim=1), torch.stack([y, y], dim=1)
    counts = torch.rand(size, generator=generator, dtype=torch.float64)
    expected = (counts * (bce_of(z, y) + bce_of(-z, y)) / 2).mean()
    torch.testing.assert_close(bce(z2, y2, counts), expected)
    squares = (counts * ((z - y) ** 2 + (-z - y) ** 2) / 2).mean()
    torch.testing.assert_close(mse(z2, y2, counts), squares)


def bce_of(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of each sample, by its formula."""
    p = 1 / (1 + torch.exp(-z))
    return -(y * p.log() + (1 - y) * (1 - p).log())


def test_bce_is_finite_where_the_sigmoid_is_one():
    loss = bce(torch.tensor([200.0]), torch.tensor([0.0]))
    assert loss.item() == pytest.approx(200.0)
