"""Rows that are encoded in memory: as prepared ones, in any number, from any number of threads."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from dlrm.data.encoded import Encoded
from dlrm.data.features import texts
from dlrm.data.features.config import FeaturesConfig
from dlrm.data.features.features import Features
from dlrm.data.features.infer import infer
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare as prepare_dataset
from dlrm.data.scoring import encode_frame
from dlrm.data.sources import raw_table
from dlrm.data.sources.clicks import ClicksSource
from dlrm.data.sources.frame import FrameSource
from dlrm.data.store import Dataset
from dlrm.errors import DatasetError, InputError

from .tables import prepare, table, with_schema

KINDS = {
    "plain": FeaturesConfig(),
    "log1p": FeaturesConfig(numbers="log1p"),
    "ranks": FeaturesConfig(numbers="quantile", missing_flags=True),
    "buckets": FeaturesConfig(numbers="drop", buckets=6),
    "hashed": FeaturesConfig(hash_rows=11, missing_flags=True),
    "crossed": FeaturesConfig(crosses=("city*few", "user id*member"), cross_min_count=2),
}
"""Settings whose numbers are the same for training rows and new ones."""


def held(dataset: Dataset) -> Encoded:
    """Return the samples of all splits, in their order."""
    splits = [dataset.split(name) for name in ("train", "validation", "test")]
    lists = [split.lists for split in splits if split.lists is not None]
    offsets = [np.diff(each.offsets) for each in lists]
    return Encoded(
        np.concatenate([split.dense for split in splits]),
        np.concatenate([split.ids for split in splits]),
        lists=(
            (
                np.concatenate([each.ids for each in lists]),
                np.concatenate([[0], np.cumsum(np.concatenate(offsets))]),
            )
            if lists
            else None
        ),  # pyright: ignore[reportArgumentType]
    )


def assert_same(one: Encoded, other: Encoded) -> None:
    np.testing.assert_array_equal(one.dense, other.dense)
    np.testing.assert_array_equal(one.ids, other.ids)
    assert (one.dense.dtype, one.ids.dtype) == (np.float32, np.int32)
    assert (one.lists is None) == (other.lists is None)
    if one.lists is not None and other.lists is not None:
        for mine, theirs in zip(one.lists, other.lists, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_new_rows_become_what_prepared_ones_are(kind, tmp_path):
    frame = table(rows=200)
    made = prepare(frame, tmp_path / "out", split="chronological", features=KINDS[kind])
    features = Features.load(made.path)
    whole = features.encode(frame)
    assert_same(whole, held(made))
    assert whole.labels is None
    # A few rows go other ways than many.
    for rows in (slice(0, 1), slice(7, 9), slice(50, 120)):
        few = features.encode(frame[rows])
        np.testing.assert_array_equal(few.dense, whole.dense[rows])
        np.testing.assert_array_equal(few.ids, whole.ids[rows])
    assert len(features.encode(frame[:0])) == 0


def test_rows_of_a_log_become_what_prepared_ones_are(tmp_path):
    source = ClicksSource(700)
    frame = pl.concat(list(source.read()))
    plain = PrepareConfig(split="chronological")
    for number, config in enumerate((plain, replace(plain, min_count=3, max_rows_per_table=40))):
        made = prepare_dataset(source, tmp_path / str(number), config).dataset
        features = Features.load(made.path)
        assert [column.scale for column in features.columns.columns[:13]] == ["log1p"] * 13
        whole = features.encode(frame.drop("label", "truth"))
        assert_same(whole, held(made))
        assert_same(encode_frame(features, frame), whole)
        for rows in (slice(0, 1), slice(5, 60)):
            few = features.encode(frame[rows])
            np.testing.assert_array_equal(few.dense, whole.dense[rows])
            np.testing.assert_array_equal(few.ids, whole.ids[rows])
        as_others_hold_them = frame.with_columns(
            pl.col([f"C{k}" for k in range(1, 27)]).cast(pl.Int64)
        )
        assert_same(encode_frame(features, as_others_hold_them.to_dict()), whole)


def test_a_log_is_a_schema_that_tables_may_have_too(tmp_path):
    """A log through blocks of codes, and as a table of parts, with ids in the whole of it."""
    source = ClicksSource(900)
    frame = pl.concat(list(source.read())).drop("truth")
    config = PrepareConfig(split="chronological", min_count=2, ids="frequency")
    made = prepare_dataset(source, tmp_path / "log", config).dataset
    schema = Features.load(made.path).columns
    other = with_schema(frame, tmp_path / "table" / "out", schema, split="chronological")
    assert other.source == "table"
    assert other.schema == made.schema
    assert_same(held(other), held(made))
    for name in made.splits:
        np.testing.assert_array_equal(made.split(name).labels, other.split(name).labels)


def test_threads_encode_the_same(tmp_path):
    frame = table(rows=400)
    asked = FeaturesConfig(buckets=5, target_means=True, log_counts=True, crosses=("city*few",))
    made = prepare(frame, tmp_path / "out", features=asked)
    expected = Features.load(made.path).encode(frame)
    features = Features.load(made.path)  # whose values are read by whoever comes first
    starts = [start for start in range(0, 400, 8) for _ in range(3)]
    with ThreadPoolExecutor(8) as pool:
        pieces = list(pool.map(lambda start: features.encode(frame[start : start + 8]), starts))
    for start, piece in zip(starts, pieces, strict=True):
        np.testing.assert_array_equal(piece.dense, expected.dense[start : start + 8])
        np.testing.assert_array_equal(piece.ids, expected.ids[start : start + 8])


def test_no_file_is_written_and_none_is_read_again(tmp_path, monkeypatch):
    frame = table(rows=100)
    made = prepare(frame, tmp_path / "out")
    features = Features.load(made.path).preload()
    (tmp_path / "out").rename(tmp_path / "away")

    def refuse(*_, **__):
        raise AssertionError("a temporary file")

    for name in ("TemporaryDirectory", "NamedTemporaryFile", "mkdtemp", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    assert len(encode_frame(features, frame)) == 100


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> Features:
    return Features.load(prepare(table(), tmp_path_factory.mktemp("fitted") / "out").path)


def test_what_a_frame_lacks_or_holds_instead(features):
    frame = table(rows=5)
    with pytest.raises(InputError, match="the frame, column city: has no such column, which the m"):
        encode_frame(features, frame.drop("city"))
    with pytest.raises(DatasetError, match="the rows have no column city; they have"):
        features.encode(frame.drop("city"))
    with pytest.raises(InputError, match=r"column city: holds List\(String\), but single values"):
        encode_frame(features, frame.with_columns(pl.concat_list("city")))
    for wrong in ("cheap", "inf"):
        price = pl.Series("price", ["1.5", "", wrong, "2", "3"])
        with pytest.raises(InputError, match=rf'row 3, column price: is "{wrong}", expected a num'):
            encode_frame(features, frame.with_columns(price))
    with pytest.raises(InputError, match='row 2, column price: is "inf", expected a number'):
        encode_frame(features, frame.with_columns(pl.Series("price", [1.0, np.inf, 2, 3, 4])))
    with pytest.raises(InputError, match=r"row 1, column seen: .* expected a time such as"):
        encode_frame(features, frame.with_columns(pl.lit("today").alias("seen")))


def test_a_value_is_one_text_in_every_type(features):
    frame = table(rows=8).with_columns(pl.Series("user id", range(10**6, 10**6 + 8)))
    expected = encode_frame(features, frame)
    for dtype in (pl.Int32, pl.Float64, pl.String):
        assert_same(
            encode_frame(features, frame.with_columns(pl.col("user id").cast(dtype))), expected
        )
    pandas = pytest.importorskip("pandas")
    assert_same(encode_frame(features, pandas.DataFrame(frame.to_dict(as_series=False))), expected)


def test_columns_are_texts_together_as_each_alone():
    rng = np.random.default_rng(0)
    words = [None, "", " a ", "1.0", "2.50", "True", "NA", "x|y", "-3.000"]
    frame = pl.DataFrame(
        {
            **{f"t{k}": rng.choice(words, 30).tolist() for k in range(3)},
            **{
                f"f{k}": rng.choice(np.array([1.0, 2.5, float("nan"), None]), 30).tolist()
                for k in range(2)
            },
            "i": rng.integers(0, 9, 30),
            "e": pl.Series(["u", "v"] * 15, dtype=pl.Enum(["u", "v"])),
        },
        strict=False,
    )
    for rows in (frame, frame[:1], frame[:0]):
        together = texts.columns_as_texts(rows, rows.columns)
        for name in rows.columns:
            assert together[name].to_list() == texts.as_texts(rows[name]).to_list()


def test_a_frame_is_fitted_where_it_is(tmp_path, monkeypatch):
    frame = table(rows=50)
    raw = FrameSource(frame).table(tmp_path, lambda _: None)
    assert not list(tmp_path.iterdir())
    assert infer(raw, ["label"]).labels == ("label",)
    assert raw.column("city").to_list() == frame["city"].to_list()
    monkeypatch.setattr(raw_table, "BLOCK_ROWS", 20)
    blocks = list(raw.blocks(["city", "price"]))
    assert [block.height for block in blocks] == [20, 20, 10]
    assert replace(raw.parts[0], first=1).scan.collect().equals(frame)
