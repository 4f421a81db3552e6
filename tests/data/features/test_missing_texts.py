"""What spreadsheets, programs and databases write for missing, in numbers, times and labels."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.features.features import Features
from dlrm.data.features.infer import infer
from dlrm.data.features.texts import NumberReading, as_numbers
from dlrm.data.scoring import encode_frame
from dlrm.data.sources.frame import FrameSource
from dlrm.data.sources.table_files import TableFiles
from dlrm.errors import ConfigError, InputError

from .tables import csv, prepare

TOKENS = (
    *("n/a", "#N/A", "N/A", "NA", "<NA>", "nan", "-nan", "NaN", "NULL", "Null", "null", "none"),
    *("None", "-", "--", "?", ".", "\\N", "#VALUE!", "#DIV/0!", "#NULL!", "1.#IND", "-1.#QNAN"),
    *("", " ", "#N/A N/A", "  n/a "),
)
ROWS = 120


def table(token: str, share: float = 0.3) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    gone = rng.random(ROWS) < share
    prices = [
        token if g else f"{x:.2f}" for x, g in zip(rng.lognormal(3, 1, ROWS), gone, strict=True)
    ]
    return pl.DataFrame(
        {"price": prices, "x": rng.normal(size=ROWS), "label": [0, 1] * (ROWS // 2)}
    )


def inferred(frame: pl.DataFrame, folder, **settings):
    return infer(FrameSource(frame).table(folder, lambda _: None), ["label"], **settings)


@pytest.mark.parametrize("token", TOKENS)
def test_numbers(token, tmp_path):
    column = inferred(table(token), tmp_path).column("price")
    assert (column.kind, column.missing_flag) == ("number", True)
    assert "missing in " in column.why
    assert (f'"{token.strip()}"' in column.why) == bool(token.strip())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([*TOKENS, "2.5"])), st.booleans(), st.sampled_from(["", "$1,234.5"])
)
def test_tokens_are_missing_in_numbers_and_times(texts, time, text_format):
    known = "2024-01-31" if time else "2.5"
    values = pl.Series([known if text == "2.5" else text for text in texts], dtype=pl.String)
    numbers, wrong = as_numbers(values, NumberReading("" if time else text_format, time=time))
    assert not wrong.any()
    assert numbers.is_not_null().to_list() == [text == "2.5" for text in texts]


def test_a_day_of_zeros_is_missing():
    days = pl.Series(["0000-00-00", "0000-00-00 00:00:00", "2024-01-31"])
    numbers, wrong = as_numbers(days, NumberReading(time=True))
    assert (numbers.null_count(), wrong.any()) == (2, False)


def test_tokens_are_added_and_turned_off(tmp_path):
    assert inferred(table("unknown"), tmp_path).column("price").kind == "category"
    schema = inferred(table("unknown"), tmp_path, missing=("unknown",))
    assert schema.column("price").kind == "number"
    assert schema.missing == ("unknown",)
    with pytest.raises(InputError, match='"n/a" is not a number'):
        inferred(table("n/a", 0.02), tmp_path, usual_missing=False)


def test_added_tokens_are_missing_in_every_column_and_when_scoring(tmp_path):
    frame = table("9999").with_columns(city=pl.Series(["9999", "Bern", "Chur"] * (ROWS // 3)))
    empty = frame.with_columns(pl.col("price", "city").replace("9999", ""))
    one = prepare(TableFiles([csv(frame, tmp_path / "a.csv")]), tmp_path / "a", missing=("9999",))
    other = prepare(TableFiles([csv(empty, tmp_path / "b.csv")]), tmp_path / "b")
    for rows in (3, ROWS):
        scored = encode_frame(Features.load(one.path), frame.head(rows).drop("label"))
        expected = encode_frame(Features.load(other.path), empty.head(rows).drop("label"))
        np.testing.assert_array_equal(scored.dense, expected.dense)
        np.testing.assert_array_equal(scored.ids, expected.ids)


def test_tokens_are_values_of_categories(tmp_path):
    frame = table("").with_columns(country=pl.Series(["NA", "none", "CH", ""] * (ROWS // 4)))
    made = prepare(frame, tmp_path / "out")
    assert set(Features.load(made.path).vocabulary("country").frame["value"]) == {
        "NA",
        "none",
        "CH",
        None,
    }


@pytest.mark.parametrize("token", [token for token in TOKENS if token.strip() not in ("", "-")])
@pytest.mark.parametrize("positive", [None, "1"])
def test_a_missing_label_is_a_bad_row(token, positive, tmp_path):
    frame = table("").with_columns(label=pl.Series([*["1", "0"] * 58, token, "1", token, "0"]))
    file = csv(frame, tmp_path / "t.csv")
    with pytest.raises(InputError, match=r"t\.csv, line 118, column label: is "):
        prepare(TableFiles([file]), tmp_path / "out", positive=positive)
    made = prepare(TableFiles([file]), tmp_path / "out", positive=positive, bad_rows="skip")
    assert made.manifest["bad_rows"]["reasons"] == {"label": 2}


def test_words_are_the_other_class_where_there_is_no_third(tmp_path):
    for other, positive in (("-", None), ("none", "some")):
        label = pl.Series([other, "+" if other == "-" else "some"] * (ROWS // 2))
        made = prepare(table("").with_columns(label=label), tmp_path / other, positive=positive)
        assert Features.load(made.path).targets[0].values == (label[0], label[1])
    na = table("").with_columns(label=pl.Series(["NA", "EU"] * (ROWS // 2)))
    with pytest.raises(ConfigError, match='60 of 120 rows have none \\("NA"\\)'):
        prepare(na, tmp_path / "na")
    made = prepare(na, tmp_path / "region", positive="EU", only_empty_missing=True)
    assert Features.load(made.path).targets[0].values == ("NA", "EU")


def test_one_text_among_numbers_is_named(tmp_path):
    column = inferred(table("left empty"), tmp_path).column("price")
    assert column.kind != "number"
    assert '--missing "left empty"' in column.why
    two = table("left empty").with_columns(
        price=pl.when(pl.int_range(ROWS) < 30).then(pl.lit("none left")).otherwise("price")
    )
    assert 'are numbers, but not "none left"' in inferred(two, tmp_path).column("price").why
    schema = inferred(table("left empty"), tmp_path, missing=("left empty",))
    assert schema.column("price").kind == "number"


@pytest.mark.parametrize("text", ["inf", "-Infinity", "\N{INFINITY}"])
def test_what_is_infinite_is_a_mistake_among_numbers(text, tmp_path):
    with pytest.raises(InputError, match=f'column price: "{text}" is not a number that a model'):
        inferred(table(text), tmp_path)
