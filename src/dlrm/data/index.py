"""Values -> their places: the index of a vocabulary, made once and read by any number of threads.

    integers of 32 bits   a hash table in C++ (native/lookup.h), 12 bytes a value; several columns
                          in one call, by threads without Python's lock; a few rows of plain values
                          cost some microseconds, because nothing of them enters Polars
    texts, longer ones    a dictionary where few values are looked up, else their hashes, sorted,
                          and a comparison with what they point to: 12 bytes a value
    all others            a join at each call

No value is in an index twice. Missing (null) is a value like any other; what is not in the index
has the place `other`, behind all others.
"""

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data import kernels
from dlrm.data.kernels import COLUMN, MISSING, PRESENT, UNSEEN
from dlrm.data.threads import CORES

_BEYOND = 1 << 32


def small_integers(values: pl.Series) -> NDArray[np.uint32] | None:
    """Return values, 0 where missing, as integers of 32 bits; None when one of them is not."""
    if not values.dtype.is_integer():
        return None
    numbers = values.cast(pl.UInt32, strict=False)
    return numbers.fill_null(0).to_numpy() if numbers.null_count() == values.null_count() else None


class IntegerIndex:
    """Where each of V integers stands."""

    def __init__(self, values: pl.Series, numbers: NDArray[np.uint32]):
        missing = int(values.is_null().arg_true()[0]) if values.null_count() else None
        self.dtype = values.dtype
        self.other = len(values)
        """V, the place of all other values"""
        self.missing = self.other if missing is None else missing
        """Place of a missing value"""
        self.entries = kernels.index_keys(np.ascontiguousarray(numbers), missing)
        self.row = (0, 0, self.entries.ctypes.data, len(self.entries), self.missing, self.other, 0)
        """What the kernel needs to know of it, as COLUMN has it"""

    def ids(self, values: pl.Series) -> NDArray[np.int32]:
        """Return the place of each value (n,), integers of any type."""
        return look_up([self], [values])[:, 0]


def look_up(
    indices: Sequence[IntegerIndex], columns: Sequence[pl.Series], moduli: Sequence[int] = ()
) -> NDArray[np.int32]:
    """Return the place of each value in the index of its column, (n, T).

    Args:
        indices: T of them.
        columns: T of n rows each, integers of any type.
        moduli: Values of a column, which is UInt32, are taken modulo this first, and missing is 0;
            0 leaves them.

    """
    rows = len(columns[0])
    if any(len(column) != rows for column in columns):
        lengths = sorted({len(column) for column in columns})
        raise ValueError(f"columns to look up have {lengths} rows, expected one number")
    table = np.array([index.row for index in indices], COLUMN)
    values, states = _numbers(columns)
    table["values"] = [array.ctypes.data for array in values]
    table["states"] = [0 if array is None else array.ctypes.data for array in states]
    if moduli:
        table["modulus"] = moduli
    return kernels.look_up_columns(table, rows, CORES)


class SeveralIndices:
    """The indices of T columns, for a few rows of plain values; several threads may use it."""

    def __init__(self, indices: Sequence[IntegerIndex], moduli: Sequence[int]):
        self._indices = indices  # whose entries the table points to
        self._table = np.array([index.row for index in indices], COLUMN)
        self._table["modulus"] = moduli

    def few(self, columns: Sequence[Sequence[int | None]]) -> NDArray[np.int32] | None:
        """Return the place of each value in the index of its column, (n, T).

        Args:
            columns: T of n integers each, None where one is missing.

        Returns:
            None where an integer has more than 32 bits, or a sign.

        """
        rows, table, states = len(columns[0]), self._table.copy(), None
        numbers = [number for column in columns for number in column]
        if None in numbers:
            states = np.array(
                [MISSING if column_values is None else PRESENT for column_values in numbers],
                np.uint8,
            )
            numbers = [number or 0 for number in numbers]
        if min(numbers) < 0 or max(numbers) >= _BEYOND:
            return None
        values = np.array(numbers, np.uint32)
        steps = np.arange(len(columns), dtype=np.uint64) * np.uint64(rows)
        table["values"] = values.ctypes.data + steps * np.uint64(values.itemsize)
        if states is not None:
            table["states"] = states.ctypes.data + steps
        return kernels.look_up_columns(table, rows, 1)


def _numbers(
    columns: Sequence[pl.Series],
) -> tuple[list[NDArray[np.uint32]], list[NDArray[np.uint8] | None]]:
    """Return the values of columns, (n,) each, and their states, None where all are PRESENT."""
    # Most columns of a log are as the kernel wants them, and cost nothing here.
    ready = [column.dtype == pl.UInt32 and not column.null_count() for column in columns]
    rest = [column for column, plain in zip(columns, ready, strict=True) if not plain]
    converted = iter(_converted(rest)) if rest else iter(())
    pairs = [
        (column.rechunk().to_numpy(), None) if plain else next(converted)
        for column, plain in zip(columns, ready, strict=True)
    ]
    return [values for values, _ in pairs], [states for _, states in pairs]


def _converted(
    columns: Sequence[pl.Series],
) -> list[tuple[NDArray[np.uint32], NDArray[np.uint8] | None]]:
    """Return the values and states of columns of any integers, see `_numbers`."""
    frame = pl.DataFrame([column.alias(str(t)) for t, column in enumerate(columns)])
    numbers = frame.select(pl.all().cast(pl.UInt32, strict=False))
    gaps = [name for name in numbers.columns if numbers[name].null_count()]
    # What is null as a number of 32 bits is missing, or was too large for one: UNSEEN.
    no_number = [pl.col(name).cast(pl.UInt32, strict=False).is_null() for name in gaps]
    states = frame.select(
        null.cast(pl.UInt8) * UNSEEN - pl.col(name).is_null().cast(pl.UInt8)
        for name, null in zip(gaps, no_number, strict=True)
    )
    values = numbers.with_columns(pl.col(gaps).fill_null(0))
    return [
        (column.to_numpy(), states[column.name].to_numpy() if column.name in gaps else None)
        for column in values
    ]


FEW_ROWS = 512
"""So many values are looked up in a dictionary, one by one: faster than starting a query."""
DICTIONARY_VALUES = 1 << 20
"""More values than these make no dictionary, which takes some 100 bytes a value."""

T = TypeVar("T")


class Once(Generic[T]):
    """Something that the first who asks for it makes; copies and pickles are empty again."""

    __slots__ = ("_lock", "_made")

    def __init__(self) -> None:
        self._lock, self._made = Lock(), []

    def get(self, make: Callable[[], T]) -> T:
        """Return it; others who ask meanwhile wait."""
        if not self._made:
            with self._lock:
                if not self._made:
                    self._made.append(make())
        return self._made[0]

    def __reduce__(self) -> tuple[type["Once[T]"], tuple[()]]:
        return Once, ()


class Index(Protocol):
    """Where each of V values stands."""

    dtype: pl.DataType
    """Type of the values"""
    other: int
    """V, the place of all other values"""

    def ids(self, values: pl.Series) -> NDArray[np.int32]:
        """Return the place of each value (n,); they are of the type of those in the index."""
        ...


def make_index(values: pl.Series) -> Index:
    """Return the index of V values, all different."""
    numbers = small_integers(values) if kernels.available() else None
    return HashIndex(values) if numbers is None else IntegerIndex(values, numbers)


class HashIndex:
    """The index of values of any type."""

    def __init__(self, values: pl.Series):
        self.dtype, self.other = values.dtype, len(values)
        self._values = values
        self._dictionary: Once[dict[object, int]] = Once()
        self._sorted: Once[tuple[NDArray[np.uint64], NDArray[np.int32]] | None] = Once()

    def ids(self, values: pl.Series) -> NDArray[np.int32]:
        """See `Index`."""
        if not (self.dtype.is_integer() or self.dtype == pl.String):
            # Equal values may be written in several ways, as NaN and 0 are.
            return self._joined(values)
        places = self.few(values.to_list()) if len(values) <= FEW_ROWS else None
        if places is not None:
            return np.array(places, np.int32)
        hashes = self._sorted.get(self._hashed)
        return self._joined(values) if hashes is None else self._searched(values, *hashes)

    def few(self, values: Sequence[object]) -> list[int] | None:
        """Return the places of a few values, integers or texts; None without a dictionary."""
        if self.other > DICTIONARY_VALUES:
            return None
        places, other = self._dictionary.get(self._numbered), self.other
        return [places.get(value, other) for value in values]

    def _numbered(self) -> dict[object, int]:
        return {value: place for place, value in enumerate(self._values.to_list())}

    def _hashed(self) -> tuple[NDArray[np.uint64], NDArray[np.int32]] | None:
        """Return the hashes of all values, rising, and their places; None where two are alike."""
        hashes = self._values.hash().to_numpy()
        order = np.argsort(hashes).astype(np.int32)
        hashes = hashes[order]
        return None if (hashes[1:] == hashes[:-1]).any() else (hashes, order)

    def _searched(
        self, values: pl.Series, hashes: NDArray[np.uint64], order: NDArray[np.int32]
    ) -> NDArray[np.int32]:
        if not self.other:
            return np.zeros(len(values), np.int32)
        at = np.searchsorted(hashes, values.hash().to_numpy())
        places = order[np.minimum(at, self.other - 1)]
        same = values.eq_missing(self._values.gather(places)).to_numpy()
        return np.where(same, places, np.int32(self.other))

    def _joined(self, values: pl.Series) -> NDArray[np.int32]:
        places = self._values.alias("value").to_frame().with_row_index("place")
        joined = (
            values.alias("value")
            .to_frame()
            .join(places, on="value", how="left", nulls_equal=True, maintain_order="left")
        )
        return joined["place"].fill_null(self.other).cast(pl.Int32).to_numpy()
