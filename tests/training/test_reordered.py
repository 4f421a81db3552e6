"""Samples in another order: the same numbers for each."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dlrm.batch import Batch, Jagged
from dlrm.training.reordered import Reordered, reordered


def batch_of(lengths: list[list[int]]) -> Batch:
    """Return a batch with lists of these lengths, of different ids."""
    count = torch.tensor(lengths)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), count.flatten().cumsum(0)])
    rows = torch.arange(len(lengths), dtype=torch.float32)
    ids = torch.arange(2 * len(lengths)).view(-1, 2)
    lists = Jagged(torch.arange(int(count.sum())), offsets)
    return Batch(rows[:, None], ids, rows[:, None], lists, rows + 1)


@given(st.data())
def test_everything_goes_with_its_sample(data):
    features = data.draw(st.integers(1, 3))
    length = st.integers(0, 3)
    samples = st.lists(
        st.lists(length, min_size=features, max_size=features), min_size=1, max_size=6
    )
    batch = batch_of(data.draw(samples))
    order = torch.tensor(data.draw(st.permutations(range(len(batch)))))
    moved = reordered(batch, order)
    assert moved.num_lists == features
    for place, sample in enumerate(order.tolist()):
        left, right = batch.slice(sample, sample + 1), moved.slice(place, place + 1)
        assert left.lists is not None
        assert right.lists is not None
        assert left.lists.values.tolist() == right.lists.values.tolist()
        assert left.lists.offsets.tolist() == right.lists.offsets.tolist()
        for name in ("dense", "ids", "labels", "weights"):
            assert getattr(left, name).tolist() == getattr(right, name).tolist()


class Sums(nn.Module):
    def forward(self, batch: Batch) -> Tensor:
        self.seen = batch.labels.flatten().tolist()
        return batch.dense.sum(1, keepdim=True) + batch.ids.sum(1, keepdim=True)


def test_logits_stay_with_their_samples():
    batch = Batch(torch.rand(50, 2), torch.arange(100).view(50, 2), torch.arange(50.0)[:, None])
    model = Sums()
    other = Reordered(model, 1)
    expected = model(batch)
    orders = []
    for _ in range(2):
        # But for the last bits.
        torch.testing.assert_close(other(batch), expected, rtol=1e-6, atol=0)
        orders.append(tuple(model.seen))
    labels = batch.labels.flatten().tolist()
    assert sorted(orders[0]) == labels
    assert len({*orders, tuple(labels)}) == 3
