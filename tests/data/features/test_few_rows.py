"""A few rows, read value by value, beside the same rows read column by column."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data import index
from dlrm.data.encoded import Encoded
from dlrm.data.features import list as lists_module
from dlrm.data.features import rows as rows_module
from dlrm.data.features.column import Column, Values
from dlrm.data.features.columns import Columns
from dlrm.data.features.config import FeaturesConfig
from dlrm.data.features.features import Features
from dlrm.data.features.rows import FEW_ROWS, hexadecimals, text_values
from dlrm.data.features.texts import as_texts
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare as prepare_dataset
from dlrm.data.scoring import encode_frame
from dlrm.data.sources.clicks import ClicksSource
from dlrm.errors import DatasetError, InputError

from .tables import prepare, table, with_schema
from .test_encode import KINDS, assert_same

TEXTS = [
    None,
    "",
    " a ",
    "1.0",
    "2.50",
    "True",
    "NA",
    "x|y",
    "-3.000",
    "-0.",
    "\x1c",
    "\u2003b ",
    "٣.0",
]
CATEGORIES = [f"C{k}" for k in range(1, 27)]
fuzz = settings(deadline=None, max_examples=200)


def by_columns(features: Features, rows: pl.DataFrame) -> Encoded:
    """Return rows as they are encoded where Polars reads every column."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (lists_module, rows_module):
            patch.setattr(module, "FEW_ROWS", -1)
        patch.setattr(index, "FEW_VALUES", -1)
        return features.encode(rows)


@fuzz
@given(
    st.one_of(
        st.tuples(st.just(pl.String), st.lists(st.sampled_from(TEXTS) | st.text())),
        st.tuples(st.just(pl.Int64), st.lists(st.none() | st.integers(-(2**63), 2**63 - 1))),
        st.tuples(st.just(pl.UInt64), st.lists(st.none() | st.integers(0, 2**64 - 1))),
        st.tuples(st.just(pl.Boolean), st.lists(st.none() | st.booleans())),
        st.tuples(st.just(pl.Null), st.lists(st.none())),
        st.tuples(
            st.sampled_from([pl.Float64, pl.Float32]),
            st.lists(st.none() | st.floats() | st.integers(-9, 2**62).map(float)),
        ),
    )
)
def test_values_are_texts_as_columns_are(column):
    dtype, values = column
    series = pl.Series(values, dtype=dtype)
    texts = text_values(series.to_list(), dtype)
    if texts is None:
        # How such numbers are written is left to Polars.
        known = [x for x in series.to_list() if x is not None and not math.isnan(x)]
        assert any(abs(x) >= 2**63 or not float(x).is_integer() for x in known)
    else:
        assert texts == as_texts(series).to_list()


@pytest.mark.parametrize("kind", [*KINDS, "encoded"])
def test_a_few_rows_are_what_they_are_among_many(kind, tmp_path):
    encoded = FeaturesConfig(buckets=5, target_means=True, log_counts=True, crosses=("city*few",))
    frame = table(rows=200)
    made = prepare(frame, tmp_path / "out", features={**KINDS, "encoded": encoded}[kind])
    features = Features.load(made.path)
    for start in (0, 13, 90):
        for height in (0, 1, 2, FEW_ROWS):
            rows = frame[start : start + height]
            assert_same(features.encode(rows), by_columns(features, rows))


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> list[Features]:
    """Return features of a log, as it is and with values modulo a number."""
    folder, source = tmp_path_factory.mktemp("logs"), ClicksSource(700)
    return [
        Features.load(prepare_dataset(source, folder / str(number), config).dataset.path)
        for number, config in enumerate(
            (PrepareConfig(split="chronological"), PrepareConfig(max_rows_per_table=40))
        )
    ]


def clicks() -> pl.DataFrame:
    """Return rows that these logs have, and rows with values that they have not."""
    return pl.concat(list(ClicksSource(720).read())).drop("label", "truth")[600:]


@pytest.mark.usefixtures("both")
def test_a_few_rows_of_a_log(logs):
    frame = clicks()
    for features in logs:
        whole = features.encode(frame)
        for rows in (frame[:1], frame[5:30], frame[len(frame) - FEW_ROWS :]):
            assert_same(encode_frame(features, rows), by_columns(features, rows))
        one_by_one = [encode_frame(features, frame[k]) for k in range(len(frame))]
        np.testing.assert_array_equal(np.concatenate([one.ids for one in one_by_one]), whole.ids)
        np.testing.assert_array_equal(
            np.concatenate([one.dense for one in one_by_one]), whole.dense
        )


def test_the_two_blocks_of_a_log_are_its_features_side_by_side(logs):
    frame = clicks()
    gaps = frame.with_columns(pl.when(pl.int_range(pl.len()) % 3 > 0).then(pl.all()))
    for features in logs:
        assert features._two_blocks
        apart = Features(
            features.source, features.columns, features.targets, features.features, features.layout
        )
        apart.__dict__["_two_blocks"] = False
        for rows in (frame[:0], frame[:1], gaps[:3], gaps[:70], gaps):
            assert_same(features.encode(rows), apart.encode(rows))
            assert features.encode(rows).dense.flags.c_contiguous


def test_a_log_may_be_written_in_hexadecimal(logs):
    frame = clicks()

    def written(values: pl.Series) -> pl.Series:
        return pl.Series([None if v is None else f"{v:08x}" for v in values], dtype=pl.String)

    texts = frame.with_columns(written(frame[name]).alias(name) for name in CATEGORIES)
    upper = texts.with_columns(pl.col(CATEGORIES).str.to_uppercase().fill_null(""))
    for features in logs:
        for rows in (slice(0, 1), slice(3, 20), slice(0, 120)):
            expected = features.encode(frame[rows])
            for other in (texts, upper):
                assert_same(encode_frame(features, other[rows]), expected)
        for rows in (1, 100):
            bad = texts[:rows].with_columns(pl.lit("Rome").alias("C5"))
            with pytest.raises(InputError, match='row 1, column C5: is "Rome", expected up to 8'):
                encode_frame(features, bad)


@given(st.lists(st.none() | st.integers(0, 2**32 - 1)))
def test_hexadecimal_texts_are_integers(numbers):
    written = pl.Series([None if n is None else f"{n:x}" for n in numbers], dtype=pl.String)
    wrong = ("g", "123456789", "0x1", "-1", " 1", "1\n", "٣")
    for times in (1, 100):
        found, bad = hexadecimals(pl.concat([written] * times))
        assert (found.to_list(), bad) == (numbers * times, None)
        for text in wrong:
            assert hexadecimals(pl.Series(["0", text] * times))[1] == 1


def test_integers_that_no_log_has_are_refused_in_one_row_as_in_many(logs):
    frame = clicks().with_columns(pl.col(CATEGORIES).cast(pl.Int64))
    for value in (-1, 2**32):
        for rows in (1, 100):
            wrong = frame[:rows].with_columns(pl.lit(value, pl.Int64).alias("C3"))
            with pytest.raises(DatasetError, match="C3 holds Int64, but its vocabulary holds UInt"):
                encode_frame(logs[0], wrong)


@pytest.mark.parametrize("kind", ["list", "sequence"])
def test_a_few_lists_of_every_kind(kind, tmp_path):
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, 9, size).tolist() for size in rng.integers(0, 6, 80)]
    frame = pl.DataFrame(
        {
            "item": rng.integers(0, 9, 80),
            "seen": [None if len(each) == 5 else each for each in lists],
            "words": [" | ".join(["", *map(str, each), "True"]) for each in lists],
            "label": [0, 1] * 40,
        }
    )
    longest = 3 if kind == "sequence" else 0
    schema = Columns(
        labels=("label",),
        columns=(
            Column(name="item", kind="category", table="things"),
            Column(name="seen", kind=kind, table="things", max_length=longest),
            Column(name="words", kind=kind, max_length=longest, values=Values(hash_rows=20)),
        ),
    )
    features = Features.load(with_schema(frame, tmp_path / "out", schema).path)
    nothing = frame[:2].with_columns(pl.lit(None, pl.List(pl.Int64)).alias("seen"))
    texts = frame[:9].with_columns(pl.col("seen").cast(pl.List(pl.String)).list.join("|"))
    for rows in (frame[:1], frame[3:20], nothing, texts, frame[:3].with_columns(words=None)):
        assert_same(features.encode(rows), by_columns(features, rows))


def test_what_is_not_plain_is_said_of_one_row_too(tmp_path):
    frame = table(rows=60)
    features = Features.load(prepare(frame, tmp_path / "out").path)
    row = frame[:1]
    with pytest.raises(InputError, match="column city: has no such column, which the model needs"):
        encode_frame(features, row.drop("city"))
    with pytest.raises(InputError, match=r"column city: holds List\(String\), but single values"):
        encode_frame(features, row.with_columns(pl.concat_list("city")))
    with pytest.raises(InputError, match='row 1, column price: is "inf", expected a number'):
        encode_frame(features, row.with_columns(pl.lit(float("inf")).alias("price")))
    with pytest.raises(InputError, match='row 1, column price: is "cheap", expected a number'):
        encode_frame(features, row.with_columns(pl.lit("cheap").alias("price")))
