"""Number columns of a log -> dense inputs, log(x + 1)."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray


def dense_columns(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return log(x + 1) of number columns as Float32; missing (null, NaN) and negative are 0."""
    # In float64 and rounded once, so that every machine computes the same float32.
    numbers = cs.by_name(*names).cast(pl.Float64).fill_null(0).fill_nan(0).clip(lower_bound=0)
    return frame.select(numbers.log1p().cast(pl.Float32))


def dense_array(frame: pl.DataFrame) -> NDArray[np.float32]:
    """Return Float32 columns as one row-major array (n, N)."""
    return np.ascontiguousarray(
        frame.to_numpy(order="c").reshape(frame.height, frame.width), np.float32
    )
