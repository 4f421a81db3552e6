"""Frames in memory, of Polars, of pandas, or anything Polars makes a frame of, as a Source."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs

from dlrm.data.sources.parts import Part
from dlrm.data.sources.raw_table import RawTable, check_types
from dlrm.errors import InputError

NAME = "the frame"
"""What errors call it, where others name a file."""


class FrameSource:
    """A frame in memory.

    Raises:
        InputError: It has no rows.

    """

    name = "table"

    def __init__(self, frame: Any):
        self.frame: pl.DataFrame = to_polars(frame)
        if self.frame.height == 0:
            raise InputError("has no rows", file=NAME)
        check_types(self.frame.schema, NAME)

    def schema(self) -> None:
        """Return None: a frame does not say what its columns mean."""

    def fingerprint(self) -> dict[str, Any]:
        """Return a hash of the rows."""
        digest = hashlib.sha256(repr(self.frame.schema).encode())
        digest.update(self.frame.hash_rows().to_numpy().tobytes())
        return {"source": self.name, "rows": self.frame.height, "sha256": digest.hexdigest()}

    def rows(self) -> int:
        """Return how many rows there are."""
        return self.frame.height

    def read(self) -> Iterator[pl.DataFrame]:
        """Yield the frame."""
        yield self.frame

    def table(self, folder: Path, advance: Callable[[int], None]) -> RawTable:
        """Return the rows where they are, in memory; see `Table`."""
        del folder
        advance(self.frame.height)
        return RawTable((Part(self.frame, self.frame.height, NAME),))


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
        names = [str(name) for name in frame.columns]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError("two columns are called that", file=NAME, column=twice[0])
        columns = enumerate(names)
        return pl.DataFrame([pandas_column(name, frame.iloc[:, at]) for at, name in columns])
    # Of rows one by one, all of them say what a column holds.
    rows = pl.DataFrame(frame, infer_schema_length=None)
    if type(frame).__module__.partition(".")[0] != "pyarrow":
        return rows
    # Polars takes dictionaries of numbers for numbers.
    categories = [field.name for field in frame.schema if hasattr(field.type, "index_type")]
    return rows.with_columns(cs.by_name(*categories).cast(pl.String).cast(pl.Categorical))


def _of_pandas(data: object) -> bool:
    return type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "columns")


_AS_TEXTS = ("Interval", "Period", "UUID")
"""Types whose values are known by their texts."""


def pandas_column(name: str, values: Any) -> pl.Series:
    """Return a column of pandas as one of Polars, which would ask for pyarrow where it has texts.

    What is neither number nor text, time or list stays what it is, an object.
    """
    dtype = values.dtype
    missing = values.isna().to_numpy()
    if type(dtype).__name__ == "CategoricalDtype":
        # Texts, whatever pandas has: 91, 0.5, (0, 1]; equal ones where its categories are not.
        texts = [_text(category) for category in values.cat.categories.tolist()]
        known = [None if code < 0 else texts[code] for code in values.cat.codes.tolist()]
        return pl.Series(name, known, pl.Categorical)
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
    kinds, plain = {type(value) for value in values if value is not None}, values
    if kinds & {set, frozenset}:
        plain = [sorted(x, key=str) if isinstance(x, set | frozenset) else x for x in values]
    elif str in kinds or any(kind.__name__ in _AS_TEXTS for kind in kinds):
        plain = [x if isinstance(x, list | tuple | dict) else _text(x) for x in values]
    try:
        return pl.Series(name, plain, strict=False)
    except (pl.exceptions.PanicException, pl.exceptions.PolarsError, TypeError, ValueError):
        return pl.Series(name, values, pl.Object)


def _text(value: Any) -> str | None:
    """Return a value of a column that also has texts."""
    if value is None or isinstance(value, bool):
        return None if value is None else str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
