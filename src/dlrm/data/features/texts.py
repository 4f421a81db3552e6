"""Values as texts, as numbers and as labels: what counts as missing, and what as a click."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import polars as pl

from dlrm.data.features.number_text import is_missing, read_numbers, recognise
from dlrm.data.features.time_text import (
    DIGITS,
    no_day,
    read_numeric_times,
    read_times,
    recognise_order,
    seconds_of,
)
from dlrm.errors import ConfigError

_NO = ("0", "0.0", "false", "no", "n", "f", "-1", "negative", "-")
_YES = ("1", "1.0", "true", "yes", "y", "t", "positive", "+", "+1")
FEW_ROWS = 4096
_COMPARED = re.compile(r"(>=|<=|>|<)\s*(\S.*)$")
_COMPARE: dict[str, Callable[[pl.Series, float], pl.Series]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


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


def comparison(
    positive: str | None, text_format: str = ""
) -> tuple[Callable[[pl.Series, float], pl.Series], float] | None:
    """Return how a comparison such as `>= 4` or `>= 1,000` compares, and with what number.

    The number is read as those of a format, or else as it is written. None for what is no
    comparison.
    """
    compared = _COMPARED.match(positive or "")
    if compared is None:
        return None
    bound = pl.Series([compared[2]])
    for known in (text_format, recognise(bound)[0]):
        number = as_numbers(bound, NumberReading(known))[0][0]
        if number is not None:
            return _COMPARE[compared[1]], number
    return None


def recognised(distinct: list[str], positive: str | None, label: str, *, others: str = "") -> str:
    """Return what a label is for a click: one of its values, or a comparison."""
    shown = ", ".join(f'"{value}"' for value in distinct[:5])
    shown += ", ..." if len(distinct) > 5 else ""
    if not distinct:
        raise ConfigError(f"the label {label} is missing in every row")
    if positive is not None:
        positive = str(as_texts(pl.Series([positive]))[0] or "")
        if positive.lower() in ("true", "false"):
            same = [value for value in distinct if value.lower() == positive.lower()]
            positive = same[0] if same else positive
        if positive not in distinct and comparison(positive) is None:
            raise ConfigError(f'the label {label} never is "{positive}", its values are {shown}')
        return positive
    if len(distinct) == 1:
        if not others:
            raise ConfigError(
                f"the label {label} is {shown} in every row: there is nothing to learn; it needs "
                "rows of both kinds"
            )
        raise ConfigError(
            f"the label {label} is {shown} wherever there is one, but {others}: a missing label is "
            "not taken for the other class; write what it is in those rows, such as 0 (or, if one "
            "of these texts is a class, --only-empty-missing)"
        )
    if len(distinct) != 2:
        raise ConfigError(
            f"the label {label} has {len(distinct)} values ({shown}), expected two; say which is a "
            f'click, by value or by comparison, e.g. --positive "{distinct[-1]}" or '
            '--positive ">= 4"'
        )
    yes = [value for value in distinct if value.lower() in _YES]
    no = [value for value in distinct if value.lower() in _NO]
    if len(yes) == 1 and len(no) == 1:
        return yes[0]
    problem = f"the label {label} is {shown}: say which means a click"
    raise ConfigError(f'{problem}, e.g. --positive "{distinct[0]}"')


def positives(
    distinct: list[str], click: str, text_format: str = ""
) -> Callable[[pl.Series], pl.Series]:
    """Return the function from a label's texts to clicks (UInt8, null where it is neither).

    Where no values are `distinct`, because there are too many to list, any will do.
    """
    if click not in distinct and (compared := comparison(click, text_format)):
        compare, bound = compared

        def by_bound(texts: pl.Series) -> pl.Series:
            numbers, _ = as_numbers(texts, NumberReading(text_format))
            return compare(numbers, bound).cast(pl.UInt8)

        return by_bound

    def by_value(texts: pl.Series) -> pl.Series:
        known = texts.is_in(distinct) if distinct else ~is_missing(texts)
        return (texts == click).cast(pl.UInt8).set(~known.fill_null(value=False), None)

    return by_value
