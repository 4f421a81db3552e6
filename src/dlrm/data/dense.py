"""Number columns of a log -> dense inputs, log(x + 1)."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

FEW_ROWS = 32
"""So many rows are computed number by number: faster than starting a query."""


def dense_columns(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return log(x + 1) of number columns as Float32; missing (null, NaN) and negative are 0."""
    # In float64 and rounded once, so that every machine computes the same float32.
    numbers = pl.col(names).cast(pl.Float64).fill_null(0).fill_nan(0).clip(lower_bound=0)
    return frame.select(numbers.log1p().cast(pl.Float32))


def dense_array(frame: pl.DataFrame) -> NDArray[np.float32]:
    """Return Float32 columns as one row-major array (n, N)."""
    return np.ascontiguousarray(
        frame.to_numpy(order="c").reshape(frame.height, frame.width), np.float32
    )


def dense_inputs(frame: pl.DataFrame, names: Sequence[str]) -> NDArray[np.float32]:
    """Return `dense_columns` as one array (n, N); a few rows in some microseconds."""
    columns = [frame[name] for name in names]
    if frame.height > FEW_ROWS or not all(column.dtype.is_numeric() for column in columns):
        return dense_array(dense_columns(frame, names))
    dense = np.zeros((frame.height, len(columns)), np.float32)
    for position, column in enumerate(columns):
        for row, number in enumerate(column.to_list()):
            # NaN is not greater than 0 either.
            if number is not None and number > 0:
                dense[row, position] = math.log1p(number)
    return dense
