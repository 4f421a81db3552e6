"""Values as texts, one by one: what `texts.as_texts` does to a column, for a few values."""

import re
from collections.abc import Sequence
from math import isnan
from typing import Any

import polars as pl

TEXTS: frozenset[Any] = frozenset((pl.String, pl.Categorical, pl.Enum))
"""Types that hold texts."""
_FLOATS: frozenset[Any] = frozenset((pl.Float32, pl.Float64))
_WRITTEN_ALIKE: frozenset[Any] = frozenset(
    (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Null)
)
"""Types whose values Python writes as Polars does."""
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""What Polars strips from the ends of a text, which is not all that Python does."""
_WHOLE = re.compile(r"(-?\d+)\.0*")
_TRUTHS = {"True": "true", "False": "false", "TRUE": "true", "FALSE": "false"}
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{1,8}", re.ASCII)
_LARGEST = float(1 << 63)


def text_values(values: Sequence[Any], kind: type[pl.DataType]) -> list[str | None] | None:
    """Return values as texts, None where missing.

    Args:
        values: As Polars gives them.
        kind: Type of their column.

    Returns:
        None where that is left to Polars.

    """
    if kind in TEXTS:
        return [None if value is None else _text(value) for value in values]
    if kind in _WRITTEN_ALIKE:
        return [None if value is None else str(value) for value in values]
    if kind is pl.Boolean:
        return [None if value is None else str(value).lower() for value in values]
    if kind in _FLOATS:
        texts: list[str | None] = []
        for value in values:
            if value is None or isnan(value):
                texts.append(None)
            elif -_LARGEST < value < _LARGEST and value == int(value):
                texts.append(str(int(value)))
            else:
                return None
        return texts
    return None


def _text(value: str) -> str | None:
    text = value.strip(_SPACE)
    text = _TRUTHS.get(text, text)
    if "." in text and (whole := _WHOLE.fullmatch(text)):
        return whole.group(1)
    return text or None


def hexadecimals(values: Sequence[str | None]) -> list[int | None] | None:
    """Return texts as integers of 32 bits, as a raw log writes them; None where one is none."""
    numbers: list[int | None] = []
    for value in values:
        if not value:
            numbers.append(None)
        elif _HEXADECIMAL.fullmatch(value):
            numbers.append(int(value, 16))
        else:
            return None
    return numbers
