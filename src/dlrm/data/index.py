"""Values -> their places: the index of a vocabulary, made once and read by any number of threads.

    integers of 32 bits   a hash table in C++ (native/lookup.h), 12 bytes a value; several columns
                          in one call, by threads without Python's lock
    all others            a dictionary where few values are looked up, else their hashes, sorted,
                          and a comparison with what they point to: 12 bytes a value

No value is in an index twice. Missing (null) is a value like any other; what is not in the index
has the place `other`, behind all others. What is looked up in C++ or in a dictionary needs none of
Polars' threads.
"""

from collections.abc import Sequence, Sized

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data import kernels
from dlrm.data.kernels import COLUMN, MISSING, PRESENT, UNSEEN
from dlrm.data.threads import CORES, Once, check_pool

FEW_VALUES = 512
"""So many values are looked up in a dictionary, one by one: faster than starting a query."""
DICTIONARY_VALUES = 1 << 20
"""More values than these make no dictionary, which takes some 100 bytes a value."""
_SEEDS = 4

Keys = pl.Series | Sequence[str | None]
"""n values: of a column, or a few texts as Python has them."""


def small_integers(values: pl.Series) -> NDArray[np.uint32] | None:
    """Return values, 0 where missing, as integers of 32 bits; None when one of them is not."""
    if not values.dtype.is_integer():
        return None
    numbers = values.cast(pl.UInt32, strict=False)
    return numbers.fill_null(0).to_numpy() if numbers.null_count() == values.null_count() else None


class IntegerIndex:
    """An index of V integers: value -> its place among them."""

    def __init__(self, values: pl.Series, numbers: NDArray[np.uint32]):
        missing = int(values.is_null().arg_true()[0]) if values.null_count() else None
        self.dtype, self.other = values.dtype, len(values)
        self.entries = kernels.index_keys(np.ascontiguousarray(numbers), missing)
        place = self.other if missing is None else missing
        self.row = (0, 0, self.entries.ctypes.data, len(self.entries), place, self.other, 0)
        """This index as the kernel takes it, a row of `COLUMN`"""

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
    rows = _rows_of(columns)
    table = np.array([index.row for index in indices], COLUMN)
    pairs = [_numbers(column) for column in columns]
    table["values"] = [values.ctypes.data for values, _ in pairs]
    table["states"] = [0 if states is None else states.ctypes.data for _, states in pairs]
    if moduli:
        table["modulus"] = moduli
    return kernels.look_up_columns(table, rows, CORES)


class FewRows:
    """The indices of T columns of UInt32, for a few rows whose values Python has."""

    def __init__(self, indices: Sequence[IntegerIndex]):
        self._indices = indices
        """They own what the rows of the table point to."""
        self._table = np.array([index.row for index in indices], COLUMN)

    def ids(self, columns: Sequence[Sequence[int | None]]) -> NDArray[np.int32] | None:
        """Return the place of each value (n, T), of T columns; None where one is no UInt32."""
        rows, states = _rows_of(columns), None
        values = [value for column in columns for value in column]
        if None in values:
            states = np.array([MISSING if value is None else PRESENT for value in values], np.uint8)
            values = [value or 0 for value in values]
        try:
            numbers = np.array(values, np.uint32)
        except OverflowError:
            return None
        return kernels.look_up_few(self._table, rows, numbers, states)


def _rows_of(columns: Sequence[Sized]) -> int:
    """Return the number of rows of columns, which have all as many."""
    rows = len(columns[0])
    if any(len(column) != rows for column in columns):
        lengths = sorted({len(column) for column in columns})
        raise ValueError(f"columns to look up have {lengths} rows, expected one number")
    return rows


def _numbers(column: pl.Series) -> tuple[NDArray[np.uint32], NDArray[np.uint8] | None]:
    """Return values as integers of 32 bits (n,), and their states, None where all are PRESENT."""
    if column.dtype == pl.UInt32 and len(column) > FEW_VALUES and column.null_count():
        # A mask of what is missing has the states as its bytes: True is MISSING.
        states = column.is_null().to_numpy().view(np.uint8)
        return np.ascontiguousarray(column.fill_null(0).to_numpy()), states
    # Of a column with gaps these are float64, exact for all integers of 32 bits.
    wide = column.to_numpy()
    if wide.dtype == np.uint32:
        return np.ascontiguousarray(wide), None
    small = (wide >= 0) & (wide < 1 << 32)
    if small.all():
        return wide.astype(np.uint32), None
    states = np.where(small, PRESENT, UNSEEN).astype(np.uint8)
    if column.null_count():
        states[np.isnan(wide)] = MISSING
    return np.where(small, wide, 0).astype(np.uint32), states


class HashIndex:
    """The index of values of any type."""

    def __init__(self, values: pl.Series):
        self.dtype, self.other = values.dtype, len(values)
        self._values = values
        # Equal numbers with fractions may be written in several ways, as NaN and 0 are.
        plain = self.dtype.is_integer() or self.dtype == pl.String
        self._numbered = plain and self.other <= DICTIONARY_VALUES
        self._dictionary: Once[dict[object, int]] = Once()
        self._sorted: Once[tuple[int, NDArray[np.uint64], NDArray[np.int32]]] = Once()

    def ids(self, values: Keys) -> NDArray[np.int32]:
        """Return the place of each value (n,); they are of the type of those in the index."""
        if self._numbered and len(values) <= FEW_VALUES:
            places = self._dictionary.get(self._places)
            return np.array([places.get(value, self.other) for value in values], np.int32)
        check_pool()
        if not isinstance(values, pl.Series):
            values = pl.Series(values, dtype=self.dtype)
        if not self.other:
            return np.zeros(len(values), np.int32)
        seed, hashes, order = self._sorted.get(self._hashed)
        at = np.searchsorted(hashes, hashes_of(values, seed))
        places = order[np.minimum(at, self.other - 1)]
        same = values.eq_missing(self._values.gather(places)).to_numpy()
        return np.where(same, places, np.int32(self.other))

    def _places(self) -> dict[object, int]:
        return {value: place for place, value in enumerate(self._values.to_list())}

    def _hashed(self) -> tuple[int, NDArray[np.uint64], NDArray[np.int32]]:
        """Return a seed with which all hashes differ, the hashes, rising, and their places."""
        for seed in range(_SEEDS):
            hashes = hashes_of(self._values, seed)
            order = np.argsort(hashes).astype(np.int32)
            hashes = hashes[order]
            if (hashes[1:] > hashes[:-1]).all():
                return seed, hashes, order
        raise ValueError("a value is there twice")


def hashes_of(values: pl.Series, seed: int) -> NDArray[np.uint64]:
    """Return a hash of each value (n,)."""
    return values.hash(seed).to_numpy()


Index = IntegerIndex | HashIndex


def make_index(values: pl.Series) -> Index:
    """Return the index of V values, all different."""
    numbers = small_integers(values) if kernels.available() else None
    return HashIndex(values) if numbers is None else IntegerIndex(values, numbers)
