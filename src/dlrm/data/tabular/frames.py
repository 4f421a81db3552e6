"""Frames of other libraries as Polars frames."""

from typing import Any

import polars as pl


def is_frame(data: object) -> bool:
    """Whether something is a frame, with named columns that may be of different types."""
    return isinstance(data, pl.DataFrame) or _of_pandas(data)


def to_polars(frame: Any) -> pl.DataFrame:
    """Return a frame of pandas, or anything Polars makes a frame of, as a Polars frame.

    Polars itself asks for pyarrow where a pandas frame has texts.
    """
    if isinstance(frame, pl.DataFrame):
        return frame
    if _of_pandas(frame):
        columns = enumerate(frame.columns)
        return pl.DataFrame([_column(str(name), frame.iloc[:, at]) for at, name in columns])
    return pl.DataFrame(frame)


def _of_pandas(data: object) -> bool:
    return type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "columns")


def _column(name: str, values: Any) -> pl.Series:
    kind = getattr(values.dtype, "kind", "O")
    missing = values.isna().to_numpy()
    # Plain numpy underneath; pandas' own types and objects go value by value.
    if type(values.dtype).__module__.startswith("numpy") and kind in "biufM":
        return pl.Series(name, values.to_numpy(), nan_to_null=True)
    known = [None if gone else value for value, gone in zip(values.tolist(), missing, strict=True)]
    return pl.Series(name, known, strict=False)
