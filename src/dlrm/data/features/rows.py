"""Raw rows as features read them: column by column, each once, as texts or as numbers.

What a column costs in calls of Polars is the same for one row as for thousands. So a few rows of
plain values are read by Python instead, a row of a log in some tens of microseconds, and without
Polars' threads, which a child of fork() lacks.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from math import isnan
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.texts import NumberReading, as_numbers, columns_as_texts, in_one_go
from dlrm.data.index import Keys
from dlrm.data.threads import check_pool

HANDFUL = 4
"""Integers of more rows than these are read by Polars."""
FEW_ROWS = 64
"""Texts of more rows than these are read by Polars."""
TEXTS: frozenset[Any] = frozenset((pl.String, pl.Categorical, pl.Enum))
"""Types that hold texts."""
INTEGERS: frozenset[Any] = frozenset(
    (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Null)
)
"""Types whose values Python writes as Polars does."""
_FLOATS: frozenset[Any] = frozenset((pl.Float32, pl.Float64))
_NUMBERS = INTEGERS | _FLOATS | {pl.Boolean}
"""Types that numpy has, too."""
PLAIN = _NUMBERS | TEXTS
"""Types without parameters, whose values Python has, too."""
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
"""What Polars strips from the ends of a text, which is not all that Python does."""
_WHOLE = re.compile(r"(-?\d+)\.0*")
_TRUTHS = {"True": "true", "False": "false", "TRUE": "true", "FALSE": "false"}
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{0,8}", re.ASCII)
_LARGEST = float(1 << 63)


class Rows:
    """n rows: their columns, and what was read of them."""

    def __init__(
        self,
        frame: pl.DataFrame,
        texts: Mapping[str, pl.Series] | None = None,
        *,
        height: int | None = None,
    ):
        self.height = frame.height if height is None else height
        self.types = dict(zip(frame.columns, frame.dtypes, strict=True))
        self.wrong: dict[str, pl.Series] = {}
        """Columns that were read as numbers -> a mask of values that are none, where some are."""
        self.known_texts: dict[str, Keys] = dict(texts or {})
        """Columns that were read as texts."""
        self.known_numbers: dict[str, NDArray[np.float64]] = {}
        """Columns that were read as numbers, NaN where they are missing or none."""
        self.known_lists: dict[str, tuple[Keys, NDArray[np.int64]]] = {}
        """Columns of lists that were read: all values one after another, and lengths (n,)."""
        self._frame = frame

    @cached_property
    def columns(self) -> dict[str, pl.Series]:
        """Columns by their names; a row whose values Python has needs none."""
        return dict(zip(self._frame.columns, self._frame.get_columns(), strict=True))

    @cached_property
    def integers(self) -> dict[str, tuple[int | None, ...]]:
        """Columns of integers as Python has them; empty where there are more rows than a handful.

        One call of Polars reads all columns of a row, and takes as long as one for a column.
        """
        kinds = map(type, self.types.values())
        # Values of other types may be none that Python has, such as a year of five digits.
        if not (0 < self.height <= HANDFUL and PLAIN.issuperset(kinds)):
            return {}
        values = zip(*self._frame.rows(), strict=True)
        columns = zip(self.types.items(), values, strict=True)
        return {name: column for (name, dtype), column in columns if type(dtype) in INTEGERS}

    @classmethod
    def of(cls, rows: "pl.DataFrame | Rows") -> "Rows":
        """Return the rows of a frame."""
        return rows if isinstance(rows, Rows) else cls(rows)

    def add(self, column: pl.Series) -> None:
        """Take a column of n rows, which nothing was read of yet."""
        self.columns[column.name], self.types[column.name] = column, column.dtype

    def texts(self, names: Sequence[str]) -> dict[str, Keys]:
        """Return columns as texts, null where missing; see `as_texts`."""
        rest = {}
        for name in names:
            if name not in self.known_texts:
                texts = None
                if self.height <= FEW_ROWS:
                    texts = text_values(self.columns[name].to_list(), type(self.types[name]))
                if texts is None:
                    rest[name] = self.columns[name]
                else:
                    self.known_texts[name] = texts
        if rest:
            check_pool()
            self.known_texts |= columns_as_texts(rest, rest)
        return self.known_texts

    def numbers(self, readings: Mapping[str, NumberReading]) -> NDArray[np.float64]:
        """Return C columns as numbers (C, n), NaN where they are missing or none; see `wrong`."""
        self.read(readings)
        if not readings:
            return np.empty((0, self.height))
        return np.array([self.known_numbers[name] for name in readings])

    def read(self, readings: Mapping[str, NumberReading]) -> None:
        """Read columns as numbers, which says what is `wrong` in them."""
        others: dict[NumberReading, dict[str, pl.Series]] = {}
        integers: list[str] = []
        for name, reading in readings.items():
            if name in self.known_numbers:
                continue
            kind = type(self.types[name])
            if reading.format or reading.time or kind not in _NUMBERS:
                others.setdefault(reading, {})[name] = self.columns[name]
                continue
            if name in self.integers:
                integers.append(name)
                continue
            column = self.columns[name]
            x = column.to_numpy().astype(np.float64, copy=False)
            if kind in _FLOATS and (infinite := np.isinf(x)).any():
                self.wrong[name] = pl.Series(infinite)
                x = np.where(infinite, np.nan, x)
            self.known_numbers[name] = x
        if integers:
            # Missing becomes NaN.
            numbers = np.array([self.integers[name] for name in integers], np.float64)
            self.known_numbers |= zip(integers, numbers, strict=True)
        for reading, alike in others.items():
            check_pool()
            read = in_one_go(alike, partial(as_numbers, reading=reading))
            for name, (numbers, wrong) in read.items():
                self.known_numbers[name] = numbers.to_numpy()
                if wrong.any():
                    self.wrong[name] = wrong


def as_series(values: Keys) -> pl.Series:
    """Return texts as Polars has them."""
    return values if isinstance(values, pl.Series) else pl.Series("", values, pl.String)


def text_values(values: Sequence[Any], kind: type[pl.DataType]) -> list[str | None] | None:
    """Return values as texts, None where missing; None for all where that is left to Polars."""
    if kind in TEXTS:
        return [None if value is None else text_of(value) for value in values]
    if kind in INTEGERS:
        return [None if value is None else str(value) for value in values]
    if kind is pl.Boolean:
        return [None if value is None else str(value).lower() for value in values]
    if kind not in _FLOATS:
        return None
    texts: list[str | None] = []
    for value in values:
        if value is None or isnan(value):
            texts.append(None)
        elif is_small(value):
            texts.append(str(int(value)))
        else:
            return None
    return texts


def is_small(value: float) -> bool:
    """Whether a number is an integer of 64 bits."""
    return -_LARGEST < value < _LARGEST and value == int(value)


def text_of(value: str) -> str | None:
    """Return a text as one of a category; None where it is empty."""
    text = value.strip(_SPACE)
    text = _TRUTHS.get(text, text)
    if "." in text and (whole := _WHOLE.fullmatch(text)):
        return whole.group(1)
    return text or None


def hexadecimals(texts: pl.Series) -> tuple[pl.Series, int | None]:
    """Return texts as integers of 32 bits, as a raw log writes them, null where empty.

    Returns:
        The integers, and the first row that has none; None where all have.

    """
    if len(texts) > FEW_ROWS:
        texts = texts.cast(pl.String)
        good = texts.str.contains("^[0-9a-fA-F]{0,8}$").fill_null(value=True)
        if not good.all():
            return texts, int(good.arg_min() or 0)
        return texts.set(texts == "", None).str.to_integer(base=16, dtype=pl.UInt32), None
    numbers = []
    for row, value in enumerate(texts.to_list()):
        numbers.append(hexadecimal(value) if value else None)
        if value and numbers[-1] is None:
            return texts, row
    return pl.Series(texts.name, numbers, pl.UInt32), None


def hexadecimal(text: str) -> int | None:
    """Return up to 8 hexadecimal digits as an integer; None where a text is none."""
    return int(text, 16) if text and _HEXADECIMAL.fullmatch(text) else None
