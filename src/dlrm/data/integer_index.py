"""Integers of 32 bits -> their places, by a hash table in C++ (native/lookup.h): 12 bytes a value.

Several columns are looked up in one call. One row costs some microseconds, because nothing of it
starts a query of Polars; many rows are shared among threads, without Python's lock.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data import kernels
from dlrm.data.kernels import COLUMN, MISSING, PRESENT, UNSEEN
from dlrm.data.threads import CORES

FEW_ROWS = 48
"""So many rows are taken value by value: faster than starting a query."""

_BEYOND = 1 << 32
Arrays = NDArray[np.integer] | Sequence[NDArray[np.integer] | None]
"""Values of T columns, or their states: (T, n), or (n,) each, None where all are PRESENT."""


def small_integers(values: pl.Series) -> NDArray[np.uint32] | None:
    """Return values, 0 where missing, as integers of 32 bits; None when one of them is not."""
    if not values.dtype.is_integer():
        return None
    numbers = values.cast(pl.UInt32, strict=False)
    return numbers.fill_null(0).to_numpy() if numbers.null_count() == values.null_count() else None


class IntegerIndex:
    """Where each of V integers stands.

    Args:
        values: Of any integer type, all different; one may be missing.
        numbers: The same as 32 bits, 0 where missing.

    """

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
    arrays = (_few if rows <= FEW_ROWS else _many)(columns)
    table["values"], table["states"] = map(_addresses, arrays)
    if moduli:
        table["modulus"] = moduli
    return kernels.look_up_columns(table, rows, CORES)


def _addresses(arrays: Arrays) -> list[int]:
    """Return where the array of each column begins; 0 where there is none."""
    if isinstance(arrays, np.ndarray):
        first, step = arrays.ctypes.data, arrays.strides[0]
        return [first + step * t for t in range(len(arrays))]
    return [0 if array is None else array.ctypes.data for array in arrays]


def _few(columns: Sequence[pl.Series]) -> tuple[Arrays, Arrays]:
    """Return the values of a few rows, and their states."""
    values = np.zeros((len(columns), len(columns[0])), np.uint32)
    states = np.full(values.shape, PRESENT, np.uint8)
    for t, column in enumerate(columns):
        for i, value in enumerate(column.to_list()):
            if value is None:
                states[t, i] = MISSING
            elif 0 <= value < _BEYOND:
                values[t, i] = value
            else:
                states[t, i] = UNSEEN
    return values, states


def _many(columns: Sequence[pl.Series]) -> tuple[Arrays, Arrays]:
    """Return the values of many rows, and their states, by a query for all columns."""
    frame = pl.DataFrame([column.alias(str(t)) for t, column in enumerate(columns)])
    numbers = frame.select(pl.all().cast(pl.UInt32, strict=False))
    gaps = [name for name in numbers.columns if numbers[name].null_count()]
    if not gaps:
        return [column.to_numpy() for column in numbers], [None] * len(columns)
    # What is null as a number of 32 bits is missing, or was too large for one: UNSEEN.
    no_number = [pl.col(name).cast(pl.UInt32, strict=False).is_null() for name in gaps]
    states = frame.select(
        null.cast(pl.UInt8) * UNSEEN - pl.col(name).is_null().cast(pl.UInt8)
        for name, null in zip(gaps, no_number, strict=True)
    )
    values = numbers.with_columns(pl.col(gaps).fill_null(0))
    return (
        [column.to_numpy() for column in values],
        [states[name].to_numpy() if name in states.columns else None for name in values.columns],
    )
