"""Columns of encoded rows are exchanged as if the raw rows had been."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.features.features import Features
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.raw_columns import raw_columns, rows_of, value_of, with_values_of
from dlrm.data.sources.frame import FrameSource
from recipes.films import SCHEMA, films


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Features:
    folder = tmp_path_factory.mktemp("films")
    (folder / "films.toml").write_text(SCHEMA)
    config = PrepareConfig(schema=str(folder / "films.toml"))
    prepare(FrameSource(films()), folder / "out", config, quiet=True)
    return Features.load(folder / "out")


@given(name=st.sampled_from(["viewer", "film", "minutes", "seen"]), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_exchanged_as_raw_rows_are(features, name, seed):
    rng = np.random.default_rng(seed)
    frame, other = films(int(rng.integers(1, 9)), seed=seed), films(7, seed=seed + 1)
    rows = rng.integers(0, 7, frame.height)
    column = next(column for column in raw_columns(features) if column.name == name)
    exchanged = with_values_of(features.encode(frame), column, features.encode(other), rows)
    expected = features.encode(frame.with_columns(other[name].gather(rows)))
    assert np.array_equal(exchanged.dense, expected.dense)
    assert np.array_equal(exchanged.ids, expected.ids)
    assert exchanged.lists is not None
    assert expected.lists is not None
    for mine, theirs in zip(exchanged.lists, expected.lists, strict=True):
        assert np.array_equal(mine, theirs)


def test_rows_are_taken_and_their_values_known(features):
    frame = films(9, seed=3)
    row = rows_of(features.encode(frame), np.array([4]), features.schema)
    values = {column.name: value_of(features, row, column) for column in raw_columns(features)}
    raw = frame.row(4, named=True)
    assert values["viewer"] == raw["viewer"]
    assert values["minutes"] == pytest.approx(raw["minutes"], rel=0.05)
    assert values["seen"] == [value for value in raw["seen"].split("|") if value][-4:]
    unseen = features.encode(frame.with_columns(film=pl.lit("f99")))
    assert value_of(features, unseen, raw_columns(features)[1]) == "(rare or new)"


def test_times_are_shown_as_times(tmp_path):
    days = [f"2026-01-{1 + k % 28:02d} {k % 24:02d}:00:00" for k in range(200)]
    frame = pl.DataFrame({"when": days, "bought": [k % 2 for k in range(200)]})
    config = PrepareConfig(label=("bought",))
    prepare(FrameSource(frame), tmp_path / "out", config, quiet=True)
    features = Features.load(tmp_path / "out")
    row = rows_of(features.encode(frame), np.array([30]), features.schema)
    assert value_of(features, row, raw_columns(features)[0]) == days[30]
