"""Texts as numbers and as labels: what counts as missing, and what as a click."""

import operator
import re
from collections.abc import Callable

import polars as pl

from dlrm.errors import ConfigError

MISSING_TEXTS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "\\N", "?")
"""What a number column of a text file holds where it is missing."""
_NO = ("0", "0.0", "false", "no", "n", "f", "-1", "negative", "-")
_YES = ("1", "1.0", "true", "yes", "y", "t", "positive", "+", "+1")
_COMPARED = re.compile(r"(>=|<=|>|<)\s*([-+]?\d+(?:\.\d+)?)$")
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
    """Return values as texts, null where missing; an integer is the same text in every format."""
    if is_text(values):
        values = values.cast(pl.String)
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


def as_numbers(values: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return values as Float64, null where missing; and a mask of those that are no number."""
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        return values.cast(pl.Float64).fill_nan(None), pl.repeat(
            value=False, n=len(values), dtype=pl.Boolean, eager=True
        )
    if values.dtype.is_temporal():
        return as_numbers(values.to_physical())
    texts = values.cast(pl.String).str.strip_chars()
    missing = texts.is_null() | texts.is_in(MISSING_TEXTS)
    numbers = texts.cast(pl.Float64, strict=False)
    # What Polars reads as "inf" no model can take.
    numbers = numbers.set(~numbers.is_finite().fill_null(value=False), None)
    return numbers, numbers.is_null() & ~missing


def recognised(distinct: list[str], positive: str | None, label: str) -> str:
    """Return what a label is for a click: one of its values, or a comparison.

    Args:
        distinct: The values that the label has, without missing ones.
        positive: What the schema says; None to recognise it.
        label: Name of the column, for errors.

    Raises:
        ConfigError: The label is not binary, or nobody can know which value is a click.

    """
    shown = ", ".join(f'"{value}"' for value in distinct[:5])
    shown += ", ..." if len(distinct) > 5 else ""
    if not distinct:
        raise ConfigError(f"the label {label} is missing in every row")
    if positive is not None:
        if not _COMPARED.match(positive.strip()) and positive not in distinct:
            raise ConfigError(f'the label {label} never is "{positive}", its values are {shown}')
        return positive
    if len(distinct) == 1:
        raise ConfigError(f"the label {label} is {shown} in every row: there is nothing to learn")
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


def positives(distinct: list[str], click: str, label: str) -> Callable[[pl.Series], pl.Series]:
    """Return the function from a label's texts to clicks (UInt8, null where it is neither).

    Args:
        distinct: The values that the label has, without missing ones.
        click: What `recognised` returned.
        label: Name of the column.

    """
    if compared := _COMPARED.match(click.strip()):
        sign, bound = compared.groups()
        compare = _COMPARE[sign]

        def by_bound(texts: pl.Series) -> pl.Series:
            numbers, _ = as_numbers(texts)
            return compare(numbers, float(bound)).cast(pl.UInt8).alias(label)

        return by_bound

    def by_value(texts: pl.Series) -> pl.Series:
        known = texts.is_in(distinct)
        return (texts == click).cast(pl.UInt8).set(~known.fill_null(value=False), None).alias(label)

    return by_value
