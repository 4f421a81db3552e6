"""Values as texts and as numbers, and what counts as missing."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from dlrm.data.features.number_text import is_missing, read_numbers
from dlrm.data.features.time_text import (
    DIGITS,
    no_day,
    read_numeric_times,
    read_times,
    recognise_order,
    seconds_of,
)

FEW_ROWS = 4096


def is_text(values: pl.Series) -> bool:
    """Whether values are texts, of whatever type the file has for them."""
    return values.dtype == pl.String or values.dtype in (pl.Categorical, pl.Enum)


def as_texts(values: pl.Series) -> pl.Series:
    """Return values as texts, null where missing; one value is one text in every format.

    Spaces around a text do not count: some files have one behind each separator.
    """
    # Methods of a series take its name for a pattern where it looks like one.
    values = values.alias("")
    if values.dtype == pl.Duration:
        # It has no text of its own.
        values = seconds_of(values)
    if is_text(values):
        values = values.cast(pl.String).str.strip_chars()
        # As Parquet's truth values become texts, whoever wrote the CSV.
        values = values.replace({text: text.lower() for text in ("True", "False", "TRUE", "FALSE")})
        if values.str.contains(".", literal=True).any():
            values = values.str.replace(r"^(-?\d+)\.0*$", "$1")
    elif values.dtype.is_float():
        # 3.0 in one file is 3 in another.
        whole = values.cast(pl.Int64, strict=False)
        same = (whole.cast(pl.Float64) == values.cast(pl.Float64)).fill_null(value=False)
        texts = values.cast(pl.String)
        values = whole.cast(pl.String).zip_with(same, texts)
        return values.set(texts == "NaN", None)
    else:
        values = values.cast(pl.String)
    return values.set(values == "", None)


def in_one_go(
    columns: Mapping[str, pl.Series], function: Callable[[pl.Series], tuple[pl.Series, ...]]
) -> dict[str, tuple[pl.Series, ...]]:
    """Return what a function makes of columns of n rows: of few rows, of those of a type at once.

    What each step costs beside its rows is then paid for a type, not for a column: a row of 26
    texts in a millisecond, and a table of a thousand columns in a second.
    """
    types: dict[object, list[str]] = {}
    for name, column in columns.items():
        apart = len(column) > FEW_ROWS or isinstance(column.dtype, pl.Categorical | pl.Enum)
        types.setdefault(name if apart else column.dtype, []).append(name)
    results: dict[str, tuple[pl.Series, ...]] = {}
    for alike in types.values():
        if len(alike) == 1:
            results[alike[0]] = function(columns[alike[0]])
            continue
        rows = len(columns[alike[0]])
        together = function(pl.concat([columns[name].alias("") for name in alike], rechunk=True))
        for place, name in enumerate(alike):
            results[name] = tuple(part.slice(place * rows, rows).alias(name) for part in together)
    return results


def columns_as_texts(
    frame: pl.DataFrame | Mapping[str, pl.Series], names: Iterable[str]
) -> dict[str, pl.Series]:
    """Return `as_texts` of some columns, by name."""
    texts = in_one_go({name: frame[name] for name in names}, lambda values: (as_texts(values),))
    return {name: column for name, (column,) in texts.items()}


@dataclass(frozen=True, slots=True)
class NumberReading:
    """How the values of a number column become numbers."""

    format: str = ""
    """How texts are written; see `number_text` and, for times, `time_text`."""
    time: bool = False
    """Whether values are times, whose numbers are seconds since 1970, or since midnight."""
    usual_missing: bool = True
    """Whether texts such as `n/a` are missing, and not only empty ones."""


PLAIN = NumberReading()


def time_reading(values: pl.Series) -> NumberReading:
    """Return how the times of a column are read, of which nothing is known."""
    texts = values.cast(pl.String).str.strip_chars().drop_nulls() if is_text(values) else None
    return NumberReading("" if texts is None else recognise_order(texts)[0], time=True)


def as_numbers(values: pl.Series, reading: NumberReading = PLAIN) -> tuple[pl.Series, pl.Series]:
    """Return values as Float64, null where missing; and a mask of those that are no number."""
    values = values.alias("")
    if values.dtype.is_temporal():
        numbers = seconds_of(values)
        missing = numbers.is_null()
    elif values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null):
        numbers = values.cast(pl.Float64).fill_nan(None)
        missing = numbers.is_null()
        if reading.time:
            # 0 stands for a missing day, as 0000-00-00 does.
            missing |= numbers.eq_missing(0.0) if reading.format in DIGITS else False
            numbers = read_numeric_times(values, reading.format)
    else:
        texts = values.cast(pl.String).str.strip_chars()
        if reading.time:
            numbers = read_times(texts, reading.format)
        else:
            numbers, texts = read_numbers(texts, reading.format)
        missing = texts.is_null() | (texts == "")
        if reading.usual_missing and numbers.null_count():
            missing |= numbers.is_null() & is_missing(texts)
            missing |= no_day(texts) if reading.time else False
    # What Polars reads as "inf" no model can take, and "nan" is missing.
    if reading.usual_missing:
        missing |= numbers.is_nan().fill_null(value=False)
    numbers = numbers.set(~numbers.is_finite().fill_null(value=False), None)
    return numbers, numbers.is_null() & ~missing
