"""Random batches: within their tables, distributed as named, larger than the cache together."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dlrm.bench import batches
from dlrm.bench.arch import ARCHS
from dlrm.bench.batches import cache_bytes, draw_ids, random_batch, rotation
from dlrm.errors import ConfigError
from dlrm.planning.work import Ids
from dlrm.schema import Feature, Schema, Table


@given(
    st.lists(st.integers(1, 40_000_000), min_size=1, max_size=5),
    st.sampled_from(["uniform", "zipf"]),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=50)
def test_ids_are_rows_of_their_tables(rows: list[int], ids: Ids, seed: int) -> None:
    drawn = draw_ids(rows, 200, ids, np.random.default_rng(seed))
    assert drawn.shape == (200, len(rows))
    assert drawn.dtype == np.int32
    assert (drawn >= 0).all()
    assert (drawn < np.array(rows)).all()


def test_uniform_ids_are_all_equally_likely_and_zipf_ids_fall_as_promised() -> None:
    n, samples = 50, 200_000
    promised: dict[Ids, NDArray[np.float64]] = {
        "uniform": np.full(n, 1 / n),
        "zipf": np.log1p(1 / np.arange(1, n + 1)) / np.log(n + 1),
    }
    for ids, expected in promised.items():
        drawn = draw_ids([n], samples, ids, np.random.default_rng(0))
        seen = np.bincount(drawn[:, 0], minlength=n) / samples
        assert expected.sum() == pytest.approx(1.0)
        np.testing.assert_allclose(seen, expected, atol=5 * np.sqrt(0.25 / samples))


def test_batches_are_together_larger_than_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "cache_bytes", lambda: 100_000)
    schema = Schema.one_hot(13, [5, 7])
    found = rotation(schema, 32, "uniform")
    size = sum(t.numel() * t.element_size() for b in found for t in (b.dense, b.ids, b.labels))
    assert 100_000 < size < 200_000
    assert {len(batch) for batch in found} == {32}
    assert not found[0].ids.equal(found[1].ids)
    assert found[3].ids.equal(rotation(schema, 32, "uniform")[3].ids)
    assert len(rotation(schema, 100_000, "zipf")) == batches.LEAST_BATCHES
    assert len(rotation(Schema.one_hot(13, [5]), 1, "zipf")) <= batches.MOST_BATCHES


def test_batches_are_of_their_schema() -> None:
    schema = Schema(
        dense=(),
        tables=(Table(name="item", num_embeddings=5), Table(name="day", num_embeddings=7)),
        features=(
            Feature(name="history", table="item", kind="sequence"),
            Feature(name="item", table="item"),
            Feature(name="day", table="day"),
        ),
        labels=("click", "buy"),
    )
    batch = random_batch(schema, 60, "uniform", np.random.default_rng(0), pooling=3)
    assert batch.dense.shape == (60, 0)
    assert batch.labels.shape == (60, 2)
    assert batch.ids.amax(0).tolist() == [4, 6]
    assert batch.lists is not None
    assert batch.lists.lengths.tolist() == [3] * 60
    assert batch.lists.values.max() == 4
    rated = random_batch(replace(schema, task="regression"), 60, "zipf", np.random.default_rng(0))
    assert len(rated.labels.unique()) == 120


def test_the_cache_has_a_size() -> None:
    assert 2**16 <= cache_bytes() < 2**40


def test_the_architectures_are_those_of_the_data_sets() -> None:
    kaggle, terabyte = ARCHS["criteo-kaggle"], ARCHS["criteo-terabyte"]
    assert len(kaggle.num_embeddings) == len(terabyte.num_embeddings) == 26
    assert kaggle.rows_total == 33_762_577
    assert max(terabyte.num_embeddings) < 40_000_000
    assert kaggle.bottom == (13, 512, 256, 64, 16)
    assert kaggle.top == (367, 512, 256, 1)
    assert terabyte.bottom == (13, 512, 256, 128)
    assert terabyte.top == (479, 1024, 1024, 512, 256, 1)
    assert kaggle.schema.num_embeddings == kaggle.num_embeddings


def test_tables_shrink_but_never_vanish() -> None:
    small = ARCHS["criteo-kaggle"].scaled(0.001)
    assert small.num_embeddings[2] == 10131
    assert min(small.num_embeddings) == 1
    for share in (0.0, -1.0, 1.5):
        with pytest.raises(ConfigError, match=f"rows-scale is {share}"):
            small.scaled(share)
