from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.compat.batches import Data
from dlrm.compat.engine import bounded
from dlrm.compat.flags import Flags
from dlrm.compat.measures import correct, measure_accuracy
from dlrm.errors import DatasetError
from dlrm.parallel.world import ALONE
from dlrm.schema import Schema

SCHEMA = Schema.one_hot(1, [2], ["table 0"])


def dense(batch: Batch) -> torch.Tensor:
    """Return the dense feature as the logits."""
    return batch.dense


@dataclass
class Fixed:
    batches: list[Batch]

    def __len__(self) -> int:
        return len(self.batches)

    def read(self, start: int = 0) -> Iterator[Batch]:
        yield from self.batches[start:]


def batch(logits: list[float], labels: list[float]) -> Batch:
    ids = torch.zeros(len(logits), 1, dtype=torch.int64)
    return Batch(torch.tensor(logits)[:, None], ids, torch.tensor(labels)[:, None])


def data(*batches: Batch) -> Data:
    return Data(SCHEMA, Fixed([]), Fixed(list(batches)))


@settings(deadline=None)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=9),
    st.floats(1e-6, 0.5, exclude_max=True),
)
def test_loss_threshold_clamps_probabilities(logits: list[float], threshold: float):
    samples = batch(logits, [0.0] * len(logits))
    found = bounded(Flags(loss_threshold=threshold), samples.dense).sigmoid()
    expected = torch.tensor(logits)[:, None].sigmoid().clamp(threshold, 1 - threshold)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, 2.0])
def test_a_threshold_outside_of_0_to_1_has_no_effect(threshold: float):
    samples = batch([-20.0, 20.0], [0.0, 1.0])
    flags = Flags(loss_threshold=threshold)
    assert torch.equal(bounded(flags, samples.dense), samples.dense)


def test_what_is_correct():
    logits = torch.tensor([-3.0, 3.0, 3.0, -3.0, 0.0, 0.0, 3.0])
    labels = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.7])
    # A half rounds to 0, and a label that is a probability is never met.
    assert correct(logits, labels) == 3


def test_accuracy_is_over_samples_not_batches():
    right, wrong = batch([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]), batch([1.0], [0.0])
    assert measure_accuracy(Flags(), dense, data(right, wrong), ALONE) == 0.75


def test_number_of_batches_limits_the_test_pass():
    right, wrong = batch([1.0], [1.0]), batch([1.0], [0.0])
    test = data(right, wrong, wrong)
    assert measure_accuracy(Flags(num_batches=1), dense, test, ALONE) == 1.0
    assert measure_accuracy(Flags(num_batches=2), dense, test, ALONE) == 0.5
    assert measure_accuracy(Flags(num_batches=0), dense, test, ALONE) == 1 / 3


def test_no_samples():
    with pytest.raises(DatasetError, match="no test samples"):
        measure_accuracy(Flags(), dense, data(), ALONE)
