"""The contract of a data source: raw rows, read as frames; and what it left out of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import polars as pl

from dlrm.data.features.columns import Columns
from dlrm.data.sources.raw_table import RawTable
from dlrm.errors import InputError

OnBadRow = Literal["error", "skip"]
_EXAMPLES = 5


@dataclass(slots=True)
class BadRows:
    """How many rows were left out, why, and where the first ones stand."""

    reasons: dict[str, int] = field(default_factory=dict)
    """Reason -> rows, e.g. `{"label": 2}`."""
    first: list[str] = field(default_factory=list)
    """The messages of the first few, with file, line and column."""
    places: list[int] = field(default_factory=list)
    """Their places among all rows, counted from 0, where the source knows them."""
    examples: int = _EXAMPLES
    """How many messages are kept."""

    @property
    def total(self) -> int:
        """Rows left out."""
        return sum(self.reasons.values())

    def add(self, reason: str, error: InputError, place: int | None = None) -> None:
        """Count one bad row, and keep its place where that is known."""
        if place is not None:
            self.places.append(place)
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if len(self.first) < self.examples:
            self.first.append(str(error))

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON-ready values."""
        return {"total": self.total, "reasons": dict(self.reasons), "first": list(self.first)}


class Source(Protocol):
    """Raw rows that `prepare` can turn into a dataset."""

    @property
    def name(self) -> str:
        """Name of the kind of source, e.g. `criteo` or `table`."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON-ready values that change whenever the rows would; cheap to compute.

        A prepared dataset with an equal fingerprint and equal options is not prepared again.
        """
        ...

    def schema(self) -> Columns | None:
        """Return what the columns are where the format says so; None where it does not."""
        ...

    def rows(self) -> int:
        """Return how many rows there are: an estimate, good enough for a progress bar."""
        ...

    def read(self) -> Iterator[pl.DataFrame]:
        """Yield the rows in order, some 100,000 at a time.

        Columns are those of the schema, where there is one; a missing value is null. Where the
        truth is known because it was planted, there is `truth` (Float32): the probability that each
        label was drawn with.

        Raises:
            InputError: A row is not what it should be; names file, line and column.

        """
        ...


@runtime_checkable
class Table(Protocol):
    """A source that can be read column by column, and knows where each row stands."""

    def table(self, folder: Path, advance: Callable[[int], None]) -> RawTable:
        """Return the rows as Parquet parts.

        Raises:
            InputError: A row is not what it should be; names file, line and column.

        """
        ...


def has_fixed_format(source: Source) -> bool:
    """Whether the format of a source is that of a log, which says what each column is."""
    schema = source.schema()
    return schema is not None and schema.whole_log
