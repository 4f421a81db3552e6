"""Samples in another order: the same numbers for each."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.training.reordered import Reordered, reordered


def batch_of(lengths: list[list[int]]) -> Batch:
    """Return a batch of these bags, of different ids."""
    count = torch.tensor(lengths)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), count.flatten().cumsum(0)])
    ids = torch.arange(int(count.sum()))
    rows = torch.arange(len(lengths), dtype=torch.float32)
    return Batch(rows[:, None], ids, rows, offsets)


@given(st.data())
def test_bags_go_with_their_samples(data):
    tables = data.draw(st.integers(1, 3))
    bag = st.integers(0, 3)
    samples = st.lists(st.lists(bag, min_size=tables, max_size=tables), min_size=1, max_size=6)
    batch = batch_of(data.draw(samples))
    order = torch.tensor(data.draw(st.permutations(range(len(batch)))))
    found = reordered(batch, order)
    assert found.tables == tables
    for place, sample in enumerate(order.tolist()):
        left, right = batch.slice(sample, sample + 1), found.slice(place, place + 1)
        assert left.offsets is not None
        assert right.offsets is not None
        for name in ("dense", "ids", "labels", "offsets"):
            assert getattr(left, name).tolist() == getattr(right, name).tolist()


class Sums(nn.Module):
    def forward(self, batch: Batch) -> Tensor:
        self.seen = batch.labels.tolist()
        return batch.dense.sum(1) + batch.ids.sum(1)


def test_logits_stay_with_their_samples():
    batch = Batch(torch.rand(50, 2), torch.arange(100).view(50, 2), torch.arange(50.0))
    model = Sums()
    other = Reordered(model, 1)
    expected = model(batch)
    orders = []
    for _ in range(2):
        assert torch.equal(other(batch), expected)
        orders.append(tuple(model.seen))
    assert sorted(orders[0]) == batch.labels.tolist()
    assert len({*orders, tuple(batch.labels.tolist())}) == 3
