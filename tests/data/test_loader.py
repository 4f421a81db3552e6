import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data import loader as module
from dlrm.data.loader import Loader, LoaderConfig
from dlrm.data.store import Split
from dlrm.errors import ConfigError


def split(rows: int) -> Split:
    """Rows whose values tell which row they are."""
    at = np.arange(rows)
    return Split(
        "train",
        np.stack([at, at + 0.5], axis=1).astype(np.float32),
        np.stack([at, at * 3, at * 7], axis=1).astype(np.int32),
        (at % 2).astype(np.uint8),
    )


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 8)
    monkeypatch.setattr(module, "WINDOW_ROWS", 40)


SIZES = {
    "rows": st.integers(0, 300),
    "batch_size": st.integers(1, 70),
    "shuffle": st.booleans(),
    "seed": st.integers(0, 99),
    "epoch": st.integers(0, 3),
}


@settings(deadline=None, max_examples=80)
@given(**SIZES)
def test_an_epoch_holds_every_row_once_and_whole(rows, batch_size, shuffle, seed, epoch):
    loader = Loader(split(rows), batch_size=batch_size, shuffle=shuffle, seed=seed)
    batches = list(loader.epoch(epoch))
    assert len(batches) == len(loader)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    if not batches:
        return
    row = torch.cat([batch.ids[:, 0] for batch in batches])
    assert sorted(row.tolist()) == list(range(rows))
    if not shuffle:
        assert row.tolist() == list(range(rows))
    assert torch.equal(torch.cat([b.ids for b in batches])[:, 2], row * 7)
    assert torch.equal(torch.cat([b.dense for b in batches])[:, 1], row + 0.5)
    assert torch.equal(torch.cat([b.labels for b in batches]), (row % 2).float())


@settings(deadline=None, max_examples=80)
@given(first=st.integers(0, 60), **SIZES)
def test_starting_anywhere_gives_the_rest_of_the_epoch(
    first, rows, batch_size, shuffle, seed, epoch
):
    loader = Loader(split(rows), batch_size=batch_size, shuffle=shuffle, seed=seed)
    whole, rest = list(loader.epoch(epoch)), list(loader.epoch(epoch, first))
    assert len(rest) == max(0, len(whole) - first)
    for ours, theirs in zip(rest, whole[first:], strict=True):
        assert torch.equal(ours.ids, theirs.ids)


def test_the_order_depends_on_seed_and_epoch_only():
    def order(seed: int, epoch: int) -> list[int]:
        loader = Loader(split(200), batch_size=10, shuffle=True, seed=seed)
        return torch.cat([batch.ids[:, 0] for batch in loader.epoch(epoch)]).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


def test_shuffled_rows_travel_far_and_part_from_their_neighbours():
    loader = Loader(split(4000), batch_size=10, shuffle=True)
    row = torch.cat([batch.ids[:, 0] for batch in loader.epoch()]).float()
    assert abs(float(torch.corrcoef(torch.stack([row, torch.arange(4000.0)]))[0, 1])) < 0.1
    assert float((row.diff().abs() < 2).float().mean()) < 0.1


def test_leaving_an_epoch_early_leaves_no_thread():
    import threading

    before = threading.active_count()
    batches = Loader(split(300), batch_size=7).epoch()
    next(batches)
    batches.close()
    assert threading.active_count() == before


def test_batches_hold_something():
    with pytest.raises(ConfigError, match="batch_size is 0"):
        LoaderConfig(batch_size=0)
