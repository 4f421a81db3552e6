"""Cross networks of large width against their equations in float64; bfloat16 products."""

import pytest
import torch

from dlrm.nn.cross import MatrixCross, VectorCross


def test_vector_cross_is_its_recurrence_in_float32():
    torch.manual_seed(0)
    cross = VectorCross(429, 6)
    torch.nn.init.normal_(cross.bias, std=0.1)
    x0 = torch.randn(30, 429)
    x = x0.double()
    for w, b in zip(cross.weight.double(), cross.bias.double(), strict=True):
        x = x0.double() * (x @ w)[:, None] + b + x
    torch.testing.assert_close(cross(x0).double(), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rank", [0, 16])
@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 1e-5), ("bf16", 0.02)])
def test_matrix_cross_is_within_its_rounding(rank, dtype, tolerance):
    torch.manual_seed(1)
    cross = MatrixCross(200, 3, rank=rank, dtype=dtype)
    x0 = torch.randn(40, 200, requires_grad=True)
    x = x0_ = x0.detach().double().requires_grad_()
    for layer in cross.layers:
        *factors, b = (p.detach().double() for p in layer.parameters())
        y = x
        for factor in factors:
            y = y @ factor.t()
        x = x0_ * (y + b) + x
    out = cross(x0)
    assert out.dtype == torch.float32
    out.sum().backward()
    x.sum().backward()
    for ours, theirs in ((out, x), (x0.grad, x0_.grad)):
        assert ours is not None
        assert theirs is not None
        assert (ours.double() - theirs).norm() / theirs.norm() < tolerance
