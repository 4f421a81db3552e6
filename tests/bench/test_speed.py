"""What is measured for a plan; how fast it is, no test depends on."""

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.bench import speed
from dlrm.bench.arch import ARCHS
from dlrm.recipes import find


@pytest.mark.parametrize("optimizer_bytes", [10**6, 10**8])
def test_large_tables_are_cut_and_small_ones_are_not(optimizer_bytes, monkeypatch):
    monkeypatch.setattr(speed, "LIMIT_BYTES", optimizer_bytes)
    schema, config = ARCHS["criteo-kaggle"].schema, find("criteo-kaggle")()
    cut = speed.capped(config, schema)
    most = max(cut.rows)
    assert cut.rows == tuple(min(rows, most) for rows in schema.rows)
    assert 64 * sum(cut.rows) <= optimizer_bytes or most <= 1000
    monkeypatch.setattr(speed, "LIMIT_BYTES", 10**12)
    assert speed.capped(config, schema) == schema


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=6, max_size=6), st.booleans())
def test_ids_of_cut_tables_stay_within_them(lengths, one_hot):
    rows = torch.tensor([3, 50])
    if one_hot:
        batch = Batch(torch.zeros(3, 0), torch.arange(60, 66).view(3, 2).int(), torch.zeros(3))
        ids = speed._within(batch, rows).ids
        assert ids.dtype == torch.int32
        assert bool((ids < rows).all())
        return
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    ids = torch.arange(100, 100 + sum(lengths)).int()
    cut = speed._within(Batch(torch.zeros(3, 0), ids, torch.zeros(3), offsets), rows)
    for bag in range(6):
        mine = cut.ids[offsets[bag] : offsets[bag + 1]]
        assert bool((mine < rows[bag % 2]).all())


def test_batches_without_end(clicks):
    real = list(islice(speed._batches(clicks, clicks.schema, 1000), 5))
    # 2,400 rows: the third is shorter, and then they begin anew.
    assert [len(batch) for batch in real] == [1000, 1000, 400, 1000, 1000]
    drawn = list(islice(speed._batches(None, clicks.schema, 64), 100))
    assert {len(batch) for batch in drawn} == {64}
    assert bool((drawn[0].ids < torch.tensor(clicks.schema.rows)).all())
