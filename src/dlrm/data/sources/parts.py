"""Some rows of a raw table, where they are now, and where they came from.

frames of a source  ->  parts in memory  ->  parts in files, which are read column by column
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from dlrm.data.sources.arrow_schema import dictionaries
from dlrm.data.sources.records import Fault
from dlrm.data.threads import ahead
from dlrm.errors import InputError


@dataclass(frozen=True)
class Part:
    """Some rows of the table."""

    data: Path | pl.DataFrame
    """Where they are now: a Parquet or an Arrow file, or memory."""
    rows: int
    origin: Path | str
    """Where they came from: a file, or words for what is none."""
    first: int = 1
    """What row the first one is there, counted from 1."""
    split: str | None = None
    """The split that all of them belong to; None where rows are divided later."""
    line_of: Callable[[int], int] | None = None
    """Returns the line of a record of a text, counted from 0 with those left out; else None."""
    sparse: bool = False
    """Whether a column may be absent, which is missing then in every row."""
    faults: tuple[Fault, ...] = ()
    """What was left out between the rows, in order."""

    @property
    def all_rows(self) -> int:
        """How many rows there were, with those that were left out."""
        return self.rows + len(self.faults)

    def places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the places of rows, counted from 0, among those that were there."""
        before = np.array([fault.place for fault in self.faults], np.int64)
        before -= np.arange(len(before))
        return rows + np.searchsorted(before, rows, side="right")

    def place(self, row: int) -> dict[str, int]:
        """Return the line or the row that an error names for a row, counted from 0."""
        if self.line_of is None:
            return {"row": self.first + row}
        return {"line": self.line_of(self.first - 1 + int(self.places(np.array([row]))[0]))}

    def read(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """Return what was asked of `scan`.

        Raises:
            InputError: The user's file is damaged.

        """
        with explained_parquet(self.origin):
            return rows.collect()

    @cached_property
    def scan(self) -> pl.LazyFrame:
        """The rows."""
        if isinstance(self.data, pl.DataFrame):
            return self.data.lazy()
        if self.data.suffix == ".arrow":
            return pl.scan_ipc(self.data, glob=False)
        rows = pl.scan_parquet(self.data, glob=False)
        if Path(self.origin).absolute() != self.data:
            return rows
        # Numbers may be categories by their type in the user's file.
        types = rows.collect_schema()
        names = [name for name in dictionaries(self.data) if types[name].is_numeric()]
        return rows.with_columns(
            cs.by_name(name).cast(pl.String).cast(pl.Categorical) for name in names
        )

    @cached_property
    def types(self) -> pl.Schema:
        """The columns and their types, read once: a table is read column by column."""
        return self.scan.collect_schema()


PART_ROWS = 1 << 17
"""Rows of a part on disk, at least, where those of a source are written together."""


def spilled(
    parts: Iterable[Part], folder: Path, advance: Callable[[int], None] = lambda _: None
) -> Iterator[Part]:
    """Yield parts in memory as fewer ones on disk, none of which has rows of two files."""
    held: list[Part] = []
    for part in ahead(part for part in chain(parts, [None])):
        full = sum(one.all_rows for one in held) >= PART_ROWS
        if held and (part is None or full or part.first == 1):
            yield _written(held, folder)
            advance(sum(one.rows for one in held))
            held = []
        if part is not None:
            held.append(part)


def _written(parts: Sequence[Part], folder: Path) -> Part:
    """Write consecutive parts of a file as one."""
    first = parts[0].first
    # Through a Python file, so that a full disk is the OSError that it is.
    with (out := next_file(folder, ".arrow")).open("wb") as stream:
        pl.concat([part.scan for part in parts]).collect().write_ipc(
            stream, compression="uncompressed"
        )
    faults = (
        replace(fault, place=part.first - first + fault.place)
        for part in parts
        for fault in part.faults
    )
    rows = sum(part.rows for part in parts)
    return replace(parts[0], data=out, rows=rows, faults=tuple(faults))


def stored(part: Part, folder: Path) -> Part:
    """Return a part on disk, as a Parquet file where it is in memory."""
    if isinstance(part.data, Path):
        return part
    part.data.write_parquet(out := next_file(folder))
    return replace(part, data=out)


def next_file(folder: Path, suffix: str = ".parquet") -> Path:
    """Return the name of one more file in a folder of parts."""
    return folder / f"{len(list(folder.iterdir())):06}{suffix}"


def line_of(lines: Iterable[int]) -> Callable[[int], int]:
    """Return what finds the line of a record; the lines of all are read when the first is asked."""
    known = cache(lambda: np.fromiter(lines, np.int64))
    return lambda record: int(known()[record])


@contextmanager
def explained_parquet(file: Path | str) -> Iterator[None]:
    """Turn what Polars says of a damaged Parquet file into an InputError."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"cannot be read as parquet: {reason}", file=file) from error
