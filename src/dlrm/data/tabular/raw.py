"""A raw table on disk: its columns as they were found, ready to be read column by column.

Whatever comes in (text, Parquet, libsvm, the frames of a source) becomes Parquet parts, so that
inference and fitting take one column at a time and memory never holds the whole table.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from dlrm.errors import ConfigError, InputError

BLOCK_ROWS = 1 << 17


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of the table."""

    parquet: Path
    """Where they are now."""
    rows: int
    origin: Path | str
    """Where they came from: a file, or words for what is none."""
    first: int = 1
    """What the first row is called there: its line, counted from 1, or its row."""
    lines: bool = False
    """Whether that is a line of a text file."""
    split: str | None = None
    """The split that all of them belong to; None where rows are divided later."""


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
                place = {"line" if part.lines else "row": part.first + row}
                return InputError(problem, file=part.origin, column=column, **place)
            row -= part.rows
        raise ValueError(row)

    def check_column(self, name: str, what: str) -> None:
        """Raise a ConfigError unless the table has a column of that name."""
        if name not in self.types:
            raise ConfigError(
                f'there is no {what} "{name}"; the columns are {", ".join(self.types)}'
            )

    def _scan(self, part: Part, names: Sequence[str]) -> pl.LazyFrame:
        frame = pl.scan_parquet(part.parquet, glob=False).select(names)
        return frame.with_columns(
            _cast(pl.col(name), self.types[name])
            for name in names
            if frame.collect_schema()[name] != self.types[name]
        )


def _cast(column: pl.Expr, to: pl.DataType) -> pl.Expr:
    return column.cast(to)


def _types(parts: Sequence[Part]) -> dict[str, pl.DataType]:
    """Return the types that all parts can have, and check that their columns are the same."""
    schemas = [pl.read_parquet_schema(part.parquet) for part in parts]
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
            if dtype.is_numeric() and types[name].is_numeric():
                types[name] = (
                    pl.Float64()
                    if pl.Float64 in (dtype, types[name])
                    or (dtype.is_float() or types[name].is_float())
                    else pl.Int64()
                )
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
