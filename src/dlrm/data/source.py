"""The contract of a data source: any raw click log, read as a stream of frames."""

from collections.abc import Iterator
from typing import Any, Protocol

import polars as pl


class Source(Protocol):
    """Raw data that `prepare` can turn into a dataset."""

    dense: tuple[str, ...]
    """Names of the N number columns."""
    categorical: tuple[str, ...]
    """Names of the T category columns."""
    label: str
    """Name of the label column."""

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON-ready values that change whenever the rows would; cheap to compute.

        A prepared dataset with an equal fingerprint and equal options is not prepared again.
        """
        ...

    def rows(self) -> int:
        """Return how many rows there are: an estimate, good enough for a progress bar."""
        ...

    def read(self) -> Iterator[pl.DataFrame]:
        """Yield the rows in order, some 100,000 at a time.

        Columns: the label (UInt8, 0 or 1, never null), the dense columns (any number type, null
        where missing), the categorical columns (any integer or string type, null where missing),
        and, where the truth is known because it was planted, `truth` (Float32): the probability
        that each label was drawn with.

        Raises:
            InputError: A row is not what it should be; names file, line and column.

        """
        ...
