"""Digits that are codes, declared types, row numbers, leaks, and columns of 0 and 1."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.checked import check_table
from dlrm.data.features.infer import MOST_FLAGS, infer
from dlrm.data.features.infer_numbers import numbers_rows
from dlrm.data.features.table_schema import inferred_schema
from dlrm.data.options import PrepareConfig
from dlrm.data.sources.frame import FrameSource
from dlrm.data.sources.table_files import TableFiles
from dlrm.errors import ConfigError

from .tables import csv, prepare, with_schema

RNG = np.random.default_rng(0)
N = 400
LABEL = pl.Series("label", [0, 1] * (N // 2))


def columns(frame, folder, **settings):
    table = FrameSource(frame.with_columns(LABEL)).table(folder, lambda _: None)
    return {column.name: column for column in infer(table, ["label"], **settings).columns}


def codes(low: int, high: int, many: int = 50) -> list[int]:
    return RNG.choice(RNG.integers(low, high, many), N).tolist()


def test_digits_that_are_codes(tmp_path):
    stores = codes(0, 900)
    frame = pl.DataFrame(
        {
            "zeros": [f"{k:04}" for k in stores],
            "long": [10**18 + k for k in stores],
            "long_text": [str(10**18 + k) for k in stores],
            "minus": [-1 if k % 3 == 0 else 100_000 + 977 * k for k in stores],
            "typed": pl.Series([str(k) for k in stores], dtype=pl.Categorical),
            "listed": pl.Series(list(map(str, stores)), dtype=pl.Enum(sorted({*map(str, stores)}))),
            "texts": [str(k) for k in stores],
            "amount": RNG.normal(size=N),
        }
    )
    kinds = {name: column.kind for name, column in columns(frame, tmp_path).items()}
    assert kinds.pop("amount") == "number"
    # Those that rename an earlier one are no columns of their own.
    assert set(kinds.values()) <= {"category", "ignore"}
    for name in kinds:
        one = columns(frame.select(name, "amount"), tmp_path)[name]
        assert one.kind == "category", name


def test_texts_of_a_table_of_texts_say_nothing_of_their_type(tmp_path):
    frame = pl.DataFrame(
        {"age": [str(k) for k in RNG.integers(18, 90, N)], "city": ["a", "b"] * 200}
    )
    assert columns(frame, tmp_path)["age"].kind == "number"
    assert columns(frame.with_columns(x=RNG.normal(size=N)), tmp_path)["age"].kind == "category"


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 2**12), min_size=3, max_size=12, unique=True),
    st.sampled_from([2**53, 2**62, 10**30]),
    st.sampled_from([int, str]),
)
def test_long_ids_are_told_apart(ids, least, kind):
    values = ([kind(least + k) for k in ids] * N)[:N]
    dtype = pl.String if kind is str else pl.Int128
    with TemporaryDirectory() as folder:
        frame = pl.DataFrame({"id": pl.Series(values, dtype=dtype), "x": RNG.normal(size=N)})
        made = columns(frame, Path(folder))
    assert made["id"].kind == "category"
    assert f"{len(ids)} different" in made["id"].why


def test_a_column_is_a_category_where_one_asks_for_it(tmp_path):
    frame = pl.DataFrame({"hour": RNG.integers(0, 24, N), "x": RNG.normal(size=N)})
    assert columns(frame, tmp_path)["hour"].kind == "number"
    assert columns(frame, tmp_path, categories=("hour",))["hour"].kind == "category"
    made = prepare(frame.with_columns(LABEL), tmp_path / "out", category=("hour",))
    assert "hour" in made.schema.feature_names
    schema = inferred_schema(
        FrameSource(frame.with_columns(LABEL)).table(tmp_path, lambda _: None),
        PrepareConfig(label=("label",)),
    )
    given = with_schema(frame.with_columns(LABEL), tmp_path / "given", schema, category=("hour",))
    assert "hour" in given.schema.feature_names
    with pytest.raises(ConfigError, match='unknown column "day"'):
        columns(frame, tmp_path, categories=("day",))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(30, 300), st.randoms())
def test_whatever_numbers_the_rows_is_noticed(start, step, rows, random):
    values = list(range(start, start + step * rows, step))
    random.shuffle(values)
    assert numbers_rows("anything", pl.Series(values)).startswith("numbers the rows")
    kept = sorted(random.sample(range(start, start + 3 * rows), rows)) if rows >= 50 else values
    assert numbers_rows("anything", pl.Series(kept))


@pytest.mark.parametrize(
    "name", ["", "column 1", "Unnamed: 0", "Unnamed: 0.1", "index", "__index_level_0__", "row_id"]
)
def test_names_of_indices(name):
    values = pl.Series(RNG.choice(10**6, N, replace=False))
    assert numbers_rows(name, values)
    assert not numbers_rows("price", values)


def test_a_shuffled_index_is_ignored_in_every_format(tmp_path):
    frame = pl.DataFrame({"": RNG.permutation(N), "x": RNG.normal(size=N)}).with_columns(LABEL)
    source = TableFiles([csv(frame, tmp_path / "t.csv")])
    schema = inferred_schema(
        source.table(tmp_path, lambda _: None), PrepareConfig(label=("label",))
    )
    assert [column.kind for column in schema.columns] == ["ignore", "number"]
    assert "numbers the rows" in schema.columns[0].why


def test_likely_leaks_are_named(tmp_path):
    frame = pl.DataFrame(
        {
            "after": LABEL.to_numpy() * 5 + RNG.normal(size=N),
            "state": ["paid" if k else "open" for k in LABEL],
            "noise": RNG.normal(size=N),
            "city": RNG.choice(list("abcd"), N),
            "rare": [f"c{k}" for k in RNG.integers(0, 300, N)],
        }
    ).with_columns(LABEL)
    table = FrameSource(frame).table(tmp_path, lambda _: None)
    config = PrepareConfig(label=("label",))
    schema = check_table(table, inferred_schema(table, config), config).schema
    leaks = [column.name for column in schema.columns if "LIKELY A LEAK" in column.why]
    assert leaks == ["after", "state"]


@pytest.mark.parametrize("kind", ["numbers", "truths", "texts"])
def test_many_columns_of_two_values_are_numbers(kind, tmp_path):
    flags = RNG.random((N, MOST_FLAGS + 6)) < 0.3
    frame = pl.DataFrame(flags if kind != "numbers" else flags.astype(int))
    frame = frame.cast(pl.String) if kind == "texts" else frame
    made = prepare(frame.with_columns(LABEL), tmp_path / "out", split="chronological")
    assert not made.schema.features
    np.testing.assert_array_equal(made.split("train").dense, flags[: int(N * 0.8)])
    few = columns(frame.select(pl.nth(range(5))), tmp_path)
    assert {column.kind for column in few.values()} == {"category"}
