import numpy as np
import torch
from torch import nn

from dlrm.batch import Batch
from dlrm.models.standardized import Standardized


class Fixed(nn.Module):
    """Logits that are parameters."""

    def __init__(self, logits: torch.Tensor):
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.logits


def batch(n: int = 3) -> Batch:
    return Batch(torch.zeros(n, 0), torch.zeros(n, 0, dtype=torch.int64), torch.zeros(n, 2))


def test_it_starts_at_the_mean_and_moves_by_deviations():
    labels = torch.tensor([[1.0, 5e5], [3.0, 5e5], [5.0, 5e5]])
    model = Standardized(Fixed(torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.0, 0.5]])), 2)
    model.standardize(labels.numpy())
    deviation = labels[:, 0].std(correction=0)
    expected = torch.stack([3 + deviation * torch.tensor([0.0, 1, -1]), torch.tensor([0, 1, 0.5])])
    expected[1] += 5e5
    torch.testing.assert_close(model(batch()), expected.T)


def test_weights_count_rows():
    labels, weights = torch.tensor([[1.0], [2.0], [7.0]]), torch.tensor([2.0, 1.0, 0.0])
    model, twice = (Standardized(Fixed(torch.zeros(3, 1)), 1) for _ in range(2))
    model.standardize(labels.numpy(), weights.numpy())
    twice.standardize(np.array([[1.0], [1.0], [2.0]]))
    torch.testing.assert_close(model.mean, twice.mean)
    torch.testing.assert_close(model.deviation, twice.deviation)


def test_a_checkpoint_holds_the_units():
    model, other = (Standardized(Fixed(torch.randn(3, 2)), 2) for _ in range(2))
    model.standardize(np.random.default_rng(0).normal(3, 7, (50, 2)))
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(batch()), model(batch()), rtol=0, atol=0)
