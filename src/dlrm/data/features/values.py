"""Rows of Python's values, as JSON has them: each value is read by itself.

    texts    of a text, an integer, a truth value, a whole number
    numbers  of a number or a truth value; a column of texts alone is left to Polars
    lists    of a list of what becomes a text, or of a text with a separator
    logs     32 bits, of an integer or of hexadecimal digits

They become what a frame of them would: `Features.encode` says the same of either. But no column
has a type here, so that what one row holds changes no other, and the rows of many requests can be
encoded together. What does not fit is left to a frame.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.rows import Rows, hexadecimal, is_small, text_of
from dlrm.data.features.texts import NumberReading

_NONE = type(None)
_NUMBERS = frozenset((int, float, bool, _NONE))
_TEXTS = frozenset((str, _NONE))
_LARGEST = float(1 << 63)


class NotPlainError(ValueError):
    """A value that only a frame knows what to make of."""


class Values:
    """n rows of Python's values, which become `Rows` column by column.

    Args:
        rows: Name of a column -> its value; None, or nothing, where it is missing.
        missing: Texts that the schema says are missing.

    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], missing: Sequence[str] = ()):
        self._rows, self._missing = rows, frozenset(missing)
        self.read = Rows(pl.DataFrame(), height=len(rows))
        """What was read so far."""

    def texts(self, names: Sequence[str]) -> None:
        """Read columns as texts.

        Raises:
            NotPlainError: A value is neither a text nor written as one.

        """
        for name in names:
            self.read.known_texts[name] = [self._text(value) for value in self._column(name)]

    def numbers(self, readings: Mapping[str, NumberReading]) -> None:
        """Read columns as numbers; those of texts, and all times, are left to Polars.

        Raises:
            NotPlainError: A column has texts and numbers, or a value is no number, or too large.

        """
        columns = {name: self._column(name) for name in readings}
        left = {
            name: reading
            for name, reading in readings.items()
            if reading.time or str in map(type, columns[name])
        }
        plain = {name: column for name, column in columns.items() if name not in left}
        self.read.known_numbers |= zip(plain, _as_numbers(list(plain.values())), strict=True)
        for name in left:
            if not set(map(type, columns[name])) <= _TEXTS:
                raise NotPlainError
            texts = [None if self._is_missing(text) else _sound(text) for text in columns[name]]
            self.read.add(pl.Series(name, texts, pl.String))
        self.read.numbers(left)
        if self.read.wrong:
            raise NotPlainError

    def lists(self, name: str, separator: str | None) -> None:
        """Read a column as lists of texts; without a separator a text is none.

        Raises:
            NotPlainError: A value is no list.

        """
        lists: list[list[str]] = []
        for value in self._column(name):
            items = value
            if type(value) is str and separator is not None:
                text = self._text(value)
                items = [] if text is None else text.split(separator)
            elif value is None:
                items = []
            elif type(value) is not list or not _alike(value):
                raise NotPlainError
            texts = [_plain_text(item) for item in items]
            lists.append([text for text in texts if text is not None])
        lengths = np.array([len(texts) for texts in lists], np.int64)
        self.read.known_lists[name] = list(chain.from_iterable(lists)), lengths

    def integers(self, names: Sequence[str], *, as_columns: bool) -> None:
        """Read columns as integers of 32 bits, as logs write them.

        Raises:
            NotPlainError: A value is none.

        """
        for name in names:
            numbers = tuple([_integer(value) for value in self._column(name)])
            if as_columns:
                self.read.add(pl.Series(name, numbers, pl.UInt32))
            else:
                self.read.integers[name] = numbers

    def _column(self, name: str) -> list[Any]:
        return [row.get(name) for row in self._rows]

    def _is_missing(self, value: str | None) -> bool:
        return value is None or (bool(self._missing) and value.strip() in self._missing)

    def _text(self, value: Any) -> str | None:
        if self._missing and type(value) is str and self._is_missing(value):
            return None
        return _plain_text(value)


def _alike(items: list[Any]) -> bool:
    """Whether a column of these items keeps each as it is: of 1 and true it would make numbers."""
    kinds = set(map(type, items)) - {_NONE}
    return len(kinds) <= 1 or kinds == {int, str}


def _as_numbers(columns: list[list[Any]]) -> NDArray[np.float64]:
    """Return C columns as numbers (C, n), NaN where None."""
    if not set(map(type, chain.from_iterable(columns))) <= _NUMBERS:
        raise NotPlainError
    try:
        numbers = np.array(columns, np.float64)
    except OverflowError:
        raise NotPlainError from None
    # Neither infinite, nor an integer of more bits than a column has.
    if (np.abs(numbers) >= _LARGEST).any():
        raise NotPlainError
    return numbers


def _sound(text: str) -> str:
    """Return a text all of whose letters are some."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise NotPlainError from None
    return text


def _plain_text(value: Any) -> str | None:
    if type(value) is str:
        return text_of(_sound(value))
    if value is None:
        return None
    if type(value) is bool:
        return str(value).lower()
    if type(value) in (int, float) and is_small(value):
        return str(int(value))
    raise NotPlainError


def _integer(value: Any) -> int | None:
    if type(value) is str:
        number = hexadecimal(value)
        if number is None and value:
            raise NotPlainError
        return number
    if value is None or (type(value) is int and 0 <= value < 1 << 32):
        return value
    raise NotPlainError
