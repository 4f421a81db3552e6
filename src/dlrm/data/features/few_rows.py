"""A few raw rows -> arrays, value by value: a row of a log in some tens of microseconds.

What a column costs in calls of Polars is the same for one row as for thousands. Here the values of
all columns leave the frame in one call, and plain Python encodes them, to the bits that
`Features.encode` gives. What is not plain is left to that, which also says what is wrong: an absent
or nested column, a number that is none, a value of another kind than its vocabulary.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from math import isnan, log1p
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.encoded import Encoded
from dlrm.data.features.category import Category
from dlrm.data.features.column import Values
from dlrm.data.features.inputs import Parts, assemble
from dlrm.data.features.list import LITERALS, List
from dlrm.data.features.number import Number, encode_floats
from dlrm.data.features.texts import as_numbers
from dlrm.data.features.value_table import ValueTable, hash_of
from dlrm.data.index import HashIndex, IntegerIndex, SeveralIndices
from dlrm.data.threads import pool_lost

TEXTS: frozenset[Any] = frozenset((pl.String, pl.Categorical, pl.Enum))
"""Types that hold texts."""
_INTEGERS: frozenset[Any] = frozenset(
    (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Null)
)
"""Types whose values Python writes as Polars does."""
_FLOATS: frozenset[Any] = frozenset((pl.Float32, pl.Float64))
_NUMBERS = _INTEGERS | _FLOATS | {pl.Boolean}
_LISTS: frozenset[Any] = frozenset((pl.List, pl.Array))
_NESTED = _LISTS | {pl.Struct, pl.Object}
FEW_ROWS = 64
"""More rows than these are encoded column by column."""
Column = Sequence[Any]
"""The values of n rows."""
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

    Returns:
        None where that is left to Polars.

    """
    if kind in TEXTS:
        return [None if value is None else _text(value) for value in values]
    if kind in _INTEGERS:
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


class NotPlainError(Exception):
    """Rows have something that is not encoded value by value."""


class _Rows:
    def __init__(self, frame: pl.DataFrame):
        self.frame = frame
        names = frame.columns
        self.types = dict(zip(names, map(type, frame.dtypes), strict=True))
        self.values: dict[str, Column] = dict(
            zip(names, zip(*frame.rows(), strict=True), strict=True)
        )
        self._texts: dict[str, list[str | None]] = {}

    def texts(self, name: str) -> list[str | None]:
        """Return the values of a column as texts."""
        texts = self._texts.get(name)
        if texts is None:
            texts = text_values(self.values[name], self.types[name])
            if texts is None:
                raise NotPlainError
            self._texts[name] = texts
        return texts


class FewRows:
    """Encodes a few rows; any number of threads may use it."""

    def __init__(
        self,
        features: Sequence[Number | Category | List],
        needed: Sequence[str],
        *,
        hexadecimal: bool = False,
    ):
        self._features, self._needed, self._hexadecimal = features, needed, hexadecimal
        places = dict(enumerate(features))
        self._numbers = {k: feature for k, feature in places.items() if isinstance(feature, Number)}
        self._others = {
            k: feature for k, feature in places.items() if not isinstance(feature, Number)
        }
        self._numbered = {
            k: self._others.pop(k)
            for k, feature in places.items()
            if isinstance(feature, Category) and feature.values.whole_log
        }
        self._plain = {
            k: feature
            for k, feature in self._others.items()
            if isinstance(feature, Category) and _plain(feature)
        }
        self._single = {
            name
            for feature in features
            if not isinstance(feature, List)
            for name in feature.columns
        }
        self._log1p = all(number.is_log1p for number in self._numbers.values())

    def encode(self, frame: pl.DataFrame) -> Encoded | None:
        """Return rows as arrays, without labels; None where they are not plain."""
        if not 0 < frame.height <= FEW_ROWS or frame.width > 2 * len(self._needed) + 8:
            # Of a wide frame most values would leave it in vain.
            return None
        if pool_lost() and not self._alone(frame):
            return None
        try:
            return self._encode(_Rows(frame))
        except NotPlainError:
            return None

    def _alone(self, frame: pl.DataFrame) -> bool:
        """Whether Polars computes nothing where these rows are encoded."""
        numbers = (frame.schema.get(number.name) for number in self._numbers.values())
        others = (
            isinstance(feature, List) or place in self._plain
            for place, feature in self._others.items()
        )
        return all(others) and all(type(kind) in _NUMBERS for kind in numbers)

    def _encode(self, rows: _Rows) -> Encoded:
        types, height = rows.types, rows.frame.height
        if not types.keys() >= self._single or (
            # A nested column may be one that nobody needs.
            not _NESTED.isdisjoint(types.values())
            and any(types[name] in _NESTED for name in self._single)
        ):
            raise NotPlainError
        dense = self._floats(rows) if self._numbers else np.empty((0, height))
        ids = self._ids(rows) if self._numbered else np.empty((height, 0), np.int32)
        if self._log1p and not self._others:
            return Encoded(_log1p(dense), ids)
        parts = dict(zip(self._numbers, self._scaled(dense), strict=True))
        parts |= {k: Parts(ids=[ids[:, t]]) for t, k in enumerate(self._numbered)}
        for k, feature in self._others.items():
            if k in self._plain:
                ids = _looked_up(rows.texts(feature.columns[0]), feature.values, feature.table)
                parts[k] = Parts(ids=[ids])
            else:
                parts[k] = (
                    _list(feature, rows) if isinstance(feature, List) else _encode(feature, rows)
                )
        return assemble([parts[k] for k in range(len(self._features))], height)

    def _floats(self, rows: _Rows) -> NDArray[np.float64]:
        columns: list[Any] = []
        for number in self._numbers.values():
            plain = not number.reading.format and not number.reading.time
            if plain and rows.types[number.name] in _NUMBERS:
                columns.append(rows.values[number.name])
                continue
            numbers, wrong = as_numbers(rows.frame[number.name], number.reading)
            if wrong.any():
                raise NotPlainError
            columns.append(numbers.to_list())
        x = np.array(columns, np.float64)
        if np.isinf(x).any():
            raise NotPlainError
        return x

    def _scaled(self, x: NDArray[np.float64]) -> list[Parts]:
        if self._log1p:
            return [Parts(dense=[column]) for column in _log1p(x).T]
        return encode_floats(list(self._numbers.values()), x)

    @cached_property
    def _indices(self) -> SeveralIndices | None:
        """What finds the ids of a whole log; None where some of its values are no integers."""
        tables = [feature.table for feature in self._numbered.values() if feature.table is not None]
        indices = [table.values_by_id.index for table in tables]
        integers = [index for index in indices if isinstance(index, IntegerIndex)]
        if len(integers) < len(self._numbered):
            return None
        return SeveralIndices(
            integers, [feature.values.modulo for feature in self._numbered.values()]
        )

    def _ids(self, rows: _Rows) -> NDArray[np.int32]:
        """Return the ids of categories that are numbered over a whole log (n, T)."""
        if self._indices is None:
            raise NotPlainError
        columns = []
        for category in self._numbered.values():
            name = category.columns[0]
            values, kind = rows.values[name], rows.types[name]
            if self._hexadecimal and kind in TEXTS:
                values = hexadecimals(values)
            elif kind not in _INTEGERS:
                values = None
            if values is None:
                raise NotPlainError
            columns.append(values)
        ids = self._indices.few(columns)
        if ids is None:
            raise NotPlainError
        return ids


def _log1p(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return log(1 + x), 0 where x is NaN or negative, as (n, C) of (C, n)."""
    # Number by number, as Polars computes it, to the last bit.
    numbers = [log1p(number) if number > 0.0 else 0.0 for number in x.T.ravel().tolist()]
    return np.array(numbers, np.float32).reshape(x.T.shape)


def _plain(category: Category) -> bool:
    """Whether a category is the id of a column, and nothing else."""
    values = category.values
    return values.embed and not values.encodings and len(category.columns) == 1


def _encode(category: Category, rows: _Rows) -> Parts:
    texts = {name: pl.Series(name, rows.texts(name), pl.String) for name in category.text_columns}
    return category.encode(rows.frame, texts)


def _list(feature: List, rows: _Rows) -> Parts:
    kind = rows.types.get(feature.name)
    if kind is None:
        raise NotPlainError
    lists: list[list[str | None]] = []
    if kind in _LISTS:
        dtype = rows.frame.schema[feature.name]
        inner: Any = type(dtype.inner) if isinstance(dtype, pl.List | pl.Array) else kind
        for values in rows.values[feature.name]:
            texts = text_values(values or (), inner)
            if texts is None:
                raise NotPlainError
            lists.append(texts)
    elif feature.separator == LITERALS:
        raise NotPlainError
    else:
        for text in rows.texts(feature.name):
            pieces = () if text is None else text.split(feature.separator)
            lists.append(text_values(pieces, pl.String) or [])
    kept = [[text for text in texts if text is not None] for texts in lists]
    kept = [texts[-feature.max_length :] for texts in kept] if feature.max_length else kept
    joined = [text for texts in kept for text in texts]
    ids = _looked_up(joined, feature.values, feature.table)
    return Parts(ids=[(ids, np.array([len(texts) for texts in kept], np.int64))])


def _looked_up(
    texts: Sequence[str | None], values: Values, table: ValueTable | None
) -> NDArray[np.int32]:
    if table is None:
        return np.array([hash_of(text) % values.hash_rows for text in texts], np.int32)
    index = table.values_by_id.index
    places = index.few(texts) if isinstance(index, HashIndex) else None
    if places is None:
        raise NotPlainError
    ids = np.array(places, np.int32)
    return ids if table.kept == table.values else np.minimum(ids, np.int32(table.kept))
