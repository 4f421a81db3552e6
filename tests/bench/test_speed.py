"""What is measured for a plan; how fast it is, no test depends on."""

from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch, Jagged
from dlrm.bench import speed
from dlrm.bench.arch import ARCHS
from dlrm.recipes import find
from dlrm.schema import Feature, Schema, Table


@pytest.mark.parametrize("optimizer_bytes", [10**6, 10**8])
def test_large_tables_are_cut_and_small_ones_are_not(optimizer_bytes, monkeypatch):
    monkeypatch.setattr(speed, "LIMIT_BYTES", optimizer_bytes)
    schema, config = ARCHS["criteo-kaggle"].schema, find("criteo-kaggle")()
    cut = speed.capped(config, schema)
    most = max(cut.num_embeddings)
    assert cut.num_embeddings == tuple(min(n, most) for n in schema.num_embeddings)
    assert 64 * sum(cut.num_embeddings) <= optimizer_bytes or most <= 1000
    monkeypatch.setattr(speed, "LIMIT_BYTES", 10**12)
    assert speed.capped(config, schema) == schema


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=6, max_size=6))
def test_ids_of_cut_tables_stay_within_them(lengths):
    sizes = {"a": 3, "b": 50, "as": 3, "bs": 50}
    schema = Schema(
        dense=(),
        tables=tuple(Table(name=name, num_embeddings=sizes[name]) for name in ("a", "b")),
        features=(
            Feature(name="as", table="a", kind="bag"),
            Feature(name="a", table="a"),
            Feature(name="bs", table="b", kind="sequence"),
            Feature(name="b", table="b"),
        ),
    )
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    ids = torch.arange(60, 66).view(3, 2).int()
    values = torch.arange(100, 100 + sum(lengths)).int()
    batch = Batch(torch.zeros(3, 0), ids, torch.zeros(3, 1), Jagged(values, offsets))
    cut = speed._within(batch, schema)
    assert cut.ids.dtype == torch.int32
    assert bool((cut.ids < torch.tensor([3, 50])).all())
    assert cut.lists is not None
    assert cut.lists.values.dtype == torch.int32
    assert torch.equal(cut.lists.offsets, offsets)
    for g in range(6):
        within = cut.lists.values[offsets[g] : offsets[g + 1]]
        assert bool((within < (3, 50)[g % 2]).all())


def test_batches_without_end(clicks):
    real = list(islice(speed._batches(clicks, clicks.schema, 1000), 5))
    # 2,400 rows: the third is shorter, and then they begin anew.
    assert [len(batch) for batch in real] == [1000, 1000, 400, 1000, 1000]
    drawn = list(islice(speed._batches(None, clicks.schema, 64), 100))
    assert {len(batch) for batch in drawn} == {64}
    assert bool((drawn[0].ids < torch.tensor(clicks.schema.num_embeddings)).all())
