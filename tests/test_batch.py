import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch


def bags(samples: int, tables: int, lengths: list[int]) -> Batch:
    sizes = torch.tensor((lengths * (samples * tables))[: samples * tables], dtype=torch.int64)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    return Batch(
        torch.arange(samples).float()[:, None],
        torch.arange(int(offsets[-1])),
        torch.arange(samples).float(),
        offsets,
    )


@settings(deadline=None)
@given(
    samples=st.integers(1, 6),
    tables=st.integers(1, 4),
    lengths=st.lists(st.integers(0, 3), min_size=1, max_size=7),
    data=st.data(),
)
def test_slices_of_bags_put_together_are_the_batch(samples, tables, lengths, data):
    batch = bags(samples, tables, lengths)
    cut = data.draw(st.integers(0, samples))
    parts = [batch.slice(0, cut), batch.slice(cut, samples + 3)]
    assert sum(map(len, parts)) == len(batch) == samples
    for name in ("dense", "ids", "labels"):
        whole = torch.cat([getattr(part, name) for part in parts])
        assert torch.equal(whole, getattr(batch, name))
    for part in parts:
        assert part.offsets is not None
        assert int(part.offsets[0]) == 0
        assert int(part.offsets[-1]) == len(part.ids)
        assert not len(part) or part.tables == tables


def test_slice_of_a_one_hot_batch_is_a_view():
    batch = Batch(torch.rand(5, 2), torch.randint(0, 9, (5, 3)), torch.rand(5))
    part = batch.slice(1, 4)
    assert part.tables == 3
    assert part.dense.data_ptr() == batch.dense[1:].data_ptr()
    assert torch.equal(part.ids, batch.ids[1:4])


def test_to_keeps_every_tensor():
    batch = bags(3, 2, [1, 0, 2])
    moved = batch.to("cpu")
    for name in ("dense", "ids", "labels", "offsets"):
        assert torch.equal(getattr(moved, name), getattr(batch, name))
