"""A raw table on disk: its columns as they were found, ready to be read column by column.

Whatever comes in (text, Parquet, libsvm, the frames of a source) becomes parts of columns, so that
inference and fitting take one column at a time and memory never holds the whole table.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs

from dlrm.data.features.number_text import without
from dlrm.data.features.texts import FEW_ROWS, PLAIN, NumberReading, as_numbers, as_texts, in_one_go
from dlrm.data.sources.parts import Part
from dlrm.data.sources.records import Fault
from dlrm.errors import ConfigError, InputError

BLOCK_ROWS = 1 << 17
_SHOWN = 50
_SINGLE: tuple[Any, ...] = (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null, pl.Binary)
"""Types of single values, beside numbers and times."""


FEW_VALUES = 2_000_000
"""A table of no more values is kept in memory: some tens of megabytes."""


@dataclass(frozen=True)
class RawTable:
    """The parts, in order, all with the same columns."""

    parts: tuple[Part, ...]
    missing: tuple[str, ...] = ()
    """Texts that are missing in every column."""
    types: dict[str, pl.DataType] = field(init=False)
    """Name of a column -> its type, the same in all parts."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", _types(self.parts))

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)

    def with_missing(self, tokens: tuple[str, ...]) -> "RawTable":
        """Return the table whose texts are missing where they are one of these."""
        return self if tokens == self.missing else replace(self, missing=tokens)

    def column(self, name: str) -> pl.Series:
        """Return all values of a column."""
        return (self._read([name]) if self._small is None else self._small)[name]

    def texts(self, name: str) -> pl.Series:
        """Return all values of a column as texts, see `as_texts`."""
        return self._read_as("texts", name, lambda values: (as_texts(values),))[0]

    def numbers(self, name: str, reading: NumberReading = PLAIN) -> tuple[pl.Series, pl.Series]:
        """Return all values of a column as numbers, and which are none, see `as_numbers`."""
        numbers, wrong = self._read_as(reading, name, lambda values: as_numbers(values, reading))
        return numbers, wrong

    def _read_as(
        self, what: object, name: str, function: Callable[[pl.Series], tuple[pl.Series, ...]]
    ) -> tuple[pl.Series, ...]:
        """Return what a function makes of a column; in a small table, of all its columns once."""
        if self._small is None:
            return function(self.column(name))
        known = self._known.setdefault(what, {})
        if name not in known:
            few = self.rows <= FEW_ROWS and self.types[name] == pl.String
            alike = [other for other in self.types if self.types[other] == pl.String]
            columns = {other: self._small[other] for other in (alike if few else [name])}
            known |= in_one_go(columns, function)
        return known[name]

    @cached_property
    def _known(self) -> dict[object, dict[str, tuple[pl.Series, ...]]]:
        return {}

    @cached_property
    def _small(self) -> pl.DataFrame | None:
        """A table of few values, read once: column by column takes long where columns are many."""
        few = self.rows * len(self.types) <= FEW_VALUES
        return self._read(list(self.types)) if few else None

    def _read(self, names: Sequence[str]) -> pl.DataFrame:
        read = [self._rows_of(part, names, 0, part.rows) for part in self.parts]
        return pl.concat(read, rechunk=False)

    def blocks(self, names: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield some columns of the rows in order; each frame lies in one part."""
        for part in self.parts:
            yield from self._blocks_of(part, names)

    def placed_blocks(self, names: Sequence[str]) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
        """Yield some columns of the rows in order, and where each stands.

        Yields:
            A frame, and (n,) for n rows that were there the number of each one's row in it, null
            for those that were left out.

        """
        for part in self.parts:
            places = part.places(np.arange(part.rows))
            start, end = 0, 0
            for frame in self._blocks_of(part, names):
                last = end + frame.height == part.rows
                stop = part.all_rows if last else int(places[end + frame.height])
                numbers = np.full(stop - start, -1)
                numbers[places[end : end + frame.height] - start] = np.arange(frame.height)
                yield frame, pl.Series(numbers).set(pl.Series(numbers) < 0, None)
                start, end = stop, end + frame.height
            if not part.rows and part.faults:
                empty = pl.DataFrame(schema={name: self.types[name] for name in names})
                yield empty, pl.repeat(None, len(part.faults), dtype=pl.Int64, eager=True)

    def error(self, row: int, column: str | None, problem: str) -> InputError:
        """Return the error that names the place of a row, counted from 0 over all parts."""
        for part in self.parts:
            if row < part.rows:
                return InputError(problem, file=part.origin, column=column, **part.place(row))
            row -= part.rows
        raise ValueError(row)

    @property
    def faults(self) -> list[Fault]:
        """Rows that were left out, with their places among all rows of the files."""
        faults, start = list[Fault](), 0
        for part in self.parts:
            faults += [replace(fault, place=start + fault.place) for fault in part.faults]
            start += part.all_rows
        return faults

    def check_column(self, name: str, what: str) -> None:
        """Raise a ConfigError unless the table has a column of that name."""
        if name in self.types:
            return
        shown = list(self.types)[:_SHOWN]
        listed = ", ".join(shown) + (", ..." if len(self.types) > _SHOWN else "")
        if all(column == f"c{number}" for number, column in enumerate(self.types)):
            listed += " (the file has no header: its first line looks like data; or --header yes)"
        elif len(self.types) == 1:
            listed += " (one column: --separator says what is between fields)"
        raise ConfigError(f'there is no {what} "{name}"; the columns are {listed}')

    def _blocks_of(self, part: Part, names: Sequence[str]) -> Iterator[pl.DataFrame]:
        for start in range(0, part.rows, BLOCK_ROWS):
            yield self._rows_of(part, names, start, BLOCK_ROWS)

    def _rows_of(self, part: Part, names: Sequence[str], start: int, rows: int) -> pl.DataFrame:
        # Names as they are: "*" or "^x$" may be one, and would be a pattern elsewhere.
        types = part.types
        frame = part.scan.with_columns(
            cs.by_name(name).cast(self.types[name])
            if name in types
            else pl.lit(None, self.types[name]).alias(name)
            for name in names
            if types.get(name) != self.types[name]
        ).select(cs.by_name(*names))
        return without(part.read(frame.slice(start, rows)), self.missing)


def _types(parts: Sequence[Part]) -> dict[str, pl.DataType]:
    """Return the types that all parts can have, and check that their columns are the same."""
    schemas = [part.types for part in parts]
    types = dict(schemas[0])
    for part, schema in zip(parts[1:], schemas[1:], strict=True):
        if part.sparse and parts[0].sparse:
            types |= {name: dtype for name, dtype in schema.items() if name not in types}
        for name in types:
            if name not in schema and not part.sparse:
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
    check_types(types, parts[0].origin)
    return types


def check_types(types: Mapping[str, pl.DataType], origin: Path | str) -> None:
    """Raise an InputError at a column that holds anything but single values or lists of them."""
    for name, dtype in types.items():
        inner: Any = dtype.inner if isinstance(dtype, pl.List | pl.Array) else dtype
        if not (inner.is_temporal() or inner.is_numeric() or inner in _SINGLE):
            problem = (
                f"holds {dtype}, but a column holds numbers, texts or lists of them; unnest it "
                "into columns of its own, or leave it out"
            )
            raise InputError(problem, file=origin, column=name)
