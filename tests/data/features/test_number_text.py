"""Numbers as spreadsheets and shops write them, recognised by the whole column."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.data.features.column import Column
from dlrm.data.features.features import Features
from dlrm.data.features.infer import infer
from dlrm.data.features.number_text import doubted_point, read_numbers, recognise
from dlrm.data.scoring import encode_frame
from dlrm.data.sources.frame import FrameSource
from dlrm.errors import ConfigError

from .tables import prepare

UNITS = [("", ""), ("$", ""), ("€ ", ""), ("", " €"), ("", "%"), ("CHF ", ""), ("", "kg")]
UNITS += [("", " km/h"), ("", " m²"), ("", "°C"), ("", " rooms"), ("", "ms"), ("-", "")]
SEPARATORS = [
    (",", "."),
    (".", ","),
    ("", ","),
    (" ", "."),
    (" ", ","),
    ("'", "."),
    ("\u202f", ","),
]


def written(number: float, thousands: str, decimal: str, places: int) -> str:
    return f"{number:,.{places}f}".replace(",", "\0").replace(".", decimal).replace("\0", thousands)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=20),
    st.sampled_from(SEPARATORS),
    st.sampled_from(UNITS[:-1]),
)
def test_any_format_is_recognised_and_read(cents, separators, unit):
    numbers = [cent / 100 for cent in (*cents, 123_456_789)]
    texts = pl.Series(
        [f"{unit[0]}{written(x, separators[0], separators[1], 2)}{unit[1]}" for x in numbers]
    )
    text_format, doubt = recognise(texts)
    assert not doubt
    assert read_numbers(texts, text_format)[0].to_list() == pytest.approx(numbers)


@pytest.mark.parametrize(
    ("texts", "text_format"),
    [
        (["1,234.50", "12.10"], "1,234.5"),
        (["1.234,00", "389,00"], "1.234,5"),
        (["$21.84", "($3.00)", "-$1"], "$1234.5"),
        (["12%", "3.5 %"], "1234.5%"),
        (["12,34,567", "1,000.5"], "1,234.5"),
        (["1234", "1.5", "-2e3"], ""),
        (["1234.5", "3.25-", "7"], "1234.5"),
        (["\N{MINUS SIGN}1.5", "2"], "1234.5"),
        (["(1.5)", "2", "- 3"], "1234.5"),
        (["10-20", "20-30"], ""),
        (["$", "$$"], ""),
        (["$5", "€5"], ""),
        (["1,2,3", "4,5"], ""),
        (["12 kg", "3.5 kg"], "1234.5 kg"),
        (["10ms", "2.5ms", "n/a"], "1234.5 ms"),
        (["10ms", "2s"], "1.2345 ks"),
        (["3k", "1.2M", "850"], "1.2345 k"),
        (["$3k", "$4k"], "$1.2345 k"),
        (["10 h", "30 min"], ""),
        (["1 day", "3 days", "4 days"], "1234.5 days"),
        (["12 Kg", "3 kg"], "1.2345 kg"),
        (["001AB", "125AB"], ""),
        (["0x1f", "0x2f"], ""),
        (["1st", "2nd", "3rd"], ""),
        (["12a", "12b", "7c"], ""),
    ],
)
def test_formats(texts, text_format):
    assert recognise(pl.Series(texts)) == (text_format, "")


def test_what_may_be_doubted_is_said(tmp_path):
    text_format, doubt = recognise(pl.Series(["2,184", "389"]))
    assert text_format == "1,234.5"
    assert doubt == 'AMBIGUOUS: if its commas are decimal commas, set format = "1234,5"'
    assert "separate thousands" in doubted_point(pl.Series(["2.184", "389"]))
    assert not doubted_point(pl.Series(["2.184", "0.389"]))
    assert "pairs of numbers" in recognise(pl.Series(["10,20", "7,3"]))[1]
    assert not recognise(pl.Series(["10,20", "7,05"]))[1]
    frame = pl.DataFrame(
        {"price": [f"{k * k},184" for k in range(1, 32)], "label": [0, *[0, 1] * 15]}
    )
    schema = infer(FrameSource(frame).table(tmp_path, lambda _: None), ["label"])
    assert "AMBIGUOUS" in schema.column("price").why


def test_a_format_makes_the_numbers_it_means(tmp_path):
    numbers = np.random.default_rng(0).lognormal(8, 1, 100).round(2)
    label = [0, 1] * 50
    plain = prepare(pl.DataFrame({"x": numbers, "label": label}), tmp_path / "plain")
    texts = [f"€{written(x, '.', ',', 2)}" for x in numbers]
    made = prepare(pl.DataFrame({"x": texts, "label": label}), tmp_path / "texts")
    for split in ("train", "test"):
        np.testing.assert_array_equal(made.split(split).dense, plain.split(split).dense)


@pytest.mark.parametrize("text_format", ["1234", "1.234.5", "abc", "1,234,5"])
def test_a_format_that_says_nothing_is_refused(text_format):
    with pytest.raises(ConfigError, match="column x: the format"):
        Column(name="x", kind="number", format=text_format)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=20),
    st.sampled_from(["{}-", "({})", "- {}", "\N{MINUS SIGN}{}"]),
)
def test_negative_numbers_without_any_other_sign(cents, negative):
    numbers = [cent / 100 for cent in (*cents, -12_345)]
    texts = [negative.format(f"{-x:.2f}") if x < 0 else f"{x:.2f}" for x in numbers]
    text_format, doubt = recognise(pl.Series(texts))
    assert (text_format, doubt) == ("1234.5", "")
    assert read_numbers(pl.Series(texts), text_format)[0].to_list() == pytest.approx(numbers)


SCALED = {"": ["", "k", "M"], "s": ["", "m", "µ", "n"], "B": ["", "k", "M", "G"]}
SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "m": 1e-3, "µ": 1e-6, "n": 1e-9}


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(sorted(SCALED)), st.sampled_from(["", " "]))
def test_thousands_before_a_unit(data, unit, space):
    scales = SCALED[unit]
    pairs = st.tuples(st.integers(-9999, 9999), st.sampled_from(scales))
    written = [*data.draw(st.lists(pairs, max_size=10)), *((15, scale) for scale in scales)]
    texts = pl.Series([f"{x / 10}{space if s + unit else ''}{s}{unit}" for x, s in written])
    text_format, doubt = recognise(texts)
    assert (text_format, doubt) == (f"1.2345 k{unit}", "")
    read = read_numbers(texts, text_format)[0].to_list()
    assert read == pytest.approx([x / 10 * SCALES[s] for x, s in written])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text("0123456789abcdef", min_size=4, max_size=4), min_size=40, max_size=80))
def test_hexadecimal_ids_are_no_numbers(ids):
    for prefix in ("", "0x"):
        texts = [f"{prefix}{text}" for text in (*ids, "1e05", "12ab", "0f3c")] * 3
        frame = pl.DataFrame({"device": texts, "label": [0, 1, 0] * (len(texts) // 3)})
        schema = infer(FrameSource(frame).table(Path(), lambda _: None), ["label"])
        assert schema.column("device").kind == "category"
    digits = pl.DataFrame({"x": ["1234", "12e4", "5678", *map(str, range(1000, 1060))] * 2})
    frame = digits.with_columns(label=pl.Series([0, 1] * 63))
    why = infer(FrameSource(frame).table(Path(), lambda _: None), ["label"]).column("x").why
    assert why.startswith("digits with an e in some")


def test_a_unit_is_said_and_read_again(tmp_path):
    weights = np.random.default_rng(0).normal(70, 9, 100).round(1)
    frame = pl.DataFrame({"w": [f"{w} kg" for w in weights], "label": [0, 1] * 50})
    made = prepare(frame, tmp_path / "out")
    assert 'written as "1234.5 kg"' in made.columns[0]["why"]
    plain = prepare(frame.with_columns(w=weights), tmp_path / "plain")
    np.testing.assert_array_equal(made.split("train").dense, plain.split("train").dense)
    for rows in (pl.DataFrame({"w": ["70.5 kg"]}), pl.DataFrame({"w": ["70.5"]})):
        np.testing.assert_array_equal(
            encode_frame(Features.load(made.path), rows).dense,
            encode_frame(Features.load(plain.path), pl.DataFrame({"w": [70.5]})).dense,
        )
