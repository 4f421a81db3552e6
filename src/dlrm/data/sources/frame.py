"""Frames in memory, of Polars, of pandas, or anything Polars makes a frame of, as a Source."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs

from dlrm.data.sources.pandas_column import pandas_column
from dlrm.data.sources.raw_table import Part, RawTable, check_types
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
