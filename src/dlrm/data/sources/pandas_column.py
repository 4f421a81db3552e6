"""A column of a pandas frame, or of Python's values, as a Polars one, whatever its type."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

_AS_TEXTS = ("Interval", "Period", "UUID")
"""Types whose values are known by their texts."""


def pandas_column(name: str, values: Any) -> pl.Series:
    """Return a column of pandas as one of Polars, which would ask for pyarrow where it has texts.

    What is neither number nor text, time or list stays what it is, an object.
    """
    dtype = values.dtype
    missing = values.isna().to_numpy()
    if type(dtype).__name__ == "CategoricalDtype":
        return _categorical(name, values.cat.categories.tolist(), values.cat.codes.to_numpy())
    if type(dtype).__name__ == "PeriodDtype":
        values = values.dt.to_timestamp()
        dtype = values.dtype
    # Plain numpy underneath; pandas' own types and objects go value by value.
    kind = getattr(dtype, "kind", "O")
    if type(dtype).__module__.startswith("numpy") and kind in "biufmM":
        array = values.to_numpy()
        if kind in "mM" and np.datetime_data(dtype)[0] == "s":
            array = array.astype(f"{kind}8[us]")
        # No type of Polars is wider than float64.
        wide = kind == "f" and array.dtype.itemsize > 8
        return pl.Series(name, array.astype(np.float64) if wide else array, nan_to_null=True)
    known = [None if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]
    return series_of(name, known)


def series_of(name: str, values: Sequence[Any]) -> pl.Series:
    """Return Python's values, None where missing, as a column."""
    kinds = {type(value) for value in values if value is not None}
    plain = _plain(kinds)
    try:
        return pl.Series(name, [plain(value) for value in values], strict=False)
    except (pl.exceptions.PanicException, pl.exceptions.PolarsError, TypeError, ValueError):
        return pl.Series(name, values, pl.Object)


def _categorical(name: str, categories: list[Any], codes: Any) -> pl.Series:
    """Return a column of categories, which are texts whatever pandas has: 91, 0.5, (0, 1]."""
    texts = [_text(category) for category in categories]
    # Numbered by their texts, which may be equal where the categories are not.
    known = [None if code < 0 else texts[code] for code in codes.tolist()]
    return pl.Series(name, known, pl.Categorical)


def _plain(kinds: set[type]) -> Callable[[Any], Any]:
    """Return what makes values of some types ones that Polars knows."""
    if kinds & {set, frozenset}:
        return lambda value: sorted(value, key=str) if isinstance(value, set | frozenset) else value
    if str in kinds or any(kind.__name__ in _AS_TEXTS for kind in kinds):
        return lambda value: value if isinstance(value, list | tuple | dict) else _text(value)
    return lambda value: value


def _text(value: Any) -> Any:
    """Return a value of a column that also has texts."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return str(value)
