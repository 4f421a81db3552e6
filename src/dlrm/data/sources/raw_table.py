"""A raw table on disk: its columns as they were found, ready to be read column by column.

Whatever comes in (text, Parquet, libsvm, the frames of a source) becomes Parquet parts, so that
inference and fitting take one column at a time and memory never holds the whole table.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import polars.selectors as cs

from dlrm.data.sources import records
from dlrm.errors import ConfigError, InputError

BLOCK_ROWS = 1 << 17
_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of the table."""

    data: Path | pl.DataFrame
    """Where they are now: a Parquet file, or memory."""
    rows: int
    origin: Path | str
    """Where they came from: a file, or words for what is none."""
    first: int = 1
    """What the first row is called there: its line, counted from 1, or its row."""
    lines: bool = False
    """Whether that is a line of a text file."""
    split: str | None = None
    """The split that all of them belong to; None where rows are divided later."""
    separator: str | None = None
    """Between the fields of a CSV text, whose rows may have several lines each."""

    def line(self, row: int) -> int:
        """Return the line of a row, counted from 0."""
        if self.separator is None:
            return self.first + row
        return int(records.lines(Path(self.origin), self.separator)[self.first - 1 + row])

    def scan(self) -> pl.LazyFrame:
        """Return the rows."""
        if isinstance(self.data, pl.DataFrame):
            return self.data.lazy()
        return pl.scan_parquet(self.data, glob=False)

    def types(self) -> pl.Schema:
        """Return the columns and their types."""
        if isinstance(self.data, pl.DataFrame):
            return self.data.schema
        return pl.Schema(pl.read_parquet_schema(self.data))


@dataclass(frozen=True)
class RawTable:
    """The parts, in order, all with the same columns."""

    parts: tuple[Part, ...]
    types: dict[str, pl.DataType] = field(init=False)
    """Name of a column -> its type, the same in all parts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", _types(self.parts))

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)

    def column(self, name: str) -> pl.Series:
        """Return all values of a column."""
        read = [self._scan(part, [name]).collect()[name] for part in self.parts]
        return pl.concat(read, rechunk=False)

    def blocks(self, names: Sequence[str], rows: int = BLOCK_ROWS) -> Iterator[pl.DataFrame]:
        """Yield some columns of the rows in order; each frame lies in one part."""
        for part in self.parts:
            for start in range(0, part.rows, rows):
                yield self._scan(part, names).slice(start, rows).collect()

    def error(self, row: int, column: str | None, problem: str) -> InputError:
        """Return the error that names the place of a row, counted from 0 over all parts."""
        for part in self.parts:
            if row < part.rows:
                place = {"line": part.line(row)} if part.lines else {"row": part.first + row}
                return InputError(problem, file=part.origin, column=column, **place)
            row -= part.rows
        raise ValueError(row)

    def check_column(self, name: str, what: str) -> None:
        """Raise a ConfigError unless the table has a column of that name."""
        if name in self.types:
            return
        shown = list(self.types)[:_SHOWN]
        listed = ", ".join(shown) + (", ..." if len(self.types) > _SHOWN else "")
        if all(column == f"c{number}" for number, column in enumerate(self.types)):
            listed += " (the file has no header: its first line looks like data)"
        raise ConfigError(f'there is no {what} "{name}"; the columns are {listed}')

    def _scan(self, part: Part, names: Sequence[str]) -> pl.LazyFrame:
        # Names as they are: "*" or "^x$" may be one, and would be a pattern elsewhere.
        frame = part.scan().select(cs.by_name(*names))
        types = frame.collect_schema()
        return frame.with_columns(
            cs.by_name(name).cast(self.types[name])
            for name in names
            if types[name] != self.types[name]
        )


def _types(parts: Sequence[Part]) -> dict[str, pl.DataType]:
    """Return the types that all parts can have, and check that their columns are the same."""
    schemas = [part.types() for part in parts]
    types = dict(schemas[0])
    for part, schema in zip(parts[1:], schemas[1:], strict=True):
        for name in types:
            if name not in schema:
                problem = f"lacks this column, which {parts[0].origin} has"
                raise InputError(problem, file=part.origin, column=name)
        for name, dtype in schema.items():
            if name not in types:
                problem = f"has this column, which {parts[0].origin} lacks"
                raise InputError(problem, file=part.origin, column=name)
            if dtype == types[name]:
                continue
            both = dtype, types[name]
            if pl.Null in both:
                types[name] = dtype if types[name] == pl.Null else types[name]
            elif all(kind.is_numeric() for kind in both) and pl.UInt64 not in both:
                whole = all(kind.is_integer() for kind in both)
                types[name] = pl.Int64() if whole else pl.Float64()
            elif dtype.is_nested() or types[name].is_nested():
                problem = f"is {dtype} here, but {types[name]} in {parts[0].origin}"
                raise InputError(problem, file=part.origin, column=name)
            else:
                types[name] = pl.String()
    for name, dtype in types.items():
        if isinstance(dtype, pl.Struct) or (
            isinstance(dtype, pl.List | pl.Array) and dtype.inner.is_nested()  # pyright: ignore[reportAttributeAccessIssue]
        ):
            problem = (
                f"holds {dtype}, but a column holds numbers, texts or lists of them; unnest it "
                "into columns of its own, or leave it out of the file"
            )
            raise InputError(problem, file=parts[0].origin, column=name)
    return types
