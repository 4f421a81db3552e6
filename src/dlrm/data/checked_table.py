"""A raw table whose rows are checked and divided, and whose schema is settled."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlrm.data.checked_rows import CheckedRows, check_rows
from dlrm.data.division import Division, divide
from dlrm.data.features.columns import Columns
from dlrm.data.features.fit import FittingRows
from dlrm.data.features.labels import Label, fit_labels, with_formats
from dlrm.data.features.leaks import with_leaks
from dlrm.data.features.table_schema import check_columns
from dlrm.data.options import PrepareConfig
from dlrm.data.sources.raw_table import Part, RawTable
from dlrm.data.sources.source import Source, Table
from dlrm.data.split import SPLITS, Protocol
from dlrm.errors import ConfigError, DatasetError

TRAIN = SPLITS.index("train")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTable:
    """A table of n rows, ready for features to be fitted to it."""

    raw: RawTable
    schema: Columns
    labels: tuple[Label, ...]
    """What the labels mean."""
    rows: CheckedRows
    """Labels and weights of all rows, and which rows are bad."""
    division: Division

    @property
    def where(self) -> NDArray[np.int8]:
        """The split of each row (n,), a place in SPLITS; negative where it is in none."""
        return self.division.where

    @property
    def train(self) -> NDArray[np.intp]:
        """The numbers of the training rows, rising."""
        return np.flatnonzero(self.where == TRAIN)

    def fitting_rows(self) -> FittingRows:
        """Return the rows that features are fitted to."""
        train = self.train
        return FittingRows(
            table=self.raw,
            train=train,
            labels=self.rows.labels[train, 0],
            good=np.flatnonzero(~self.rows.bad),
        )


def check_table(
    raw: RawTable, schema: Columns, config: PrepareConfig, *, default: Protocol = "random"
) -> CheckedTable:
    """Check the rows of a table, divide them into splits, and choose features where that is asked.

    Args:
        raw: The rows.
        schema: What the columns are.
        config: How they are prepared.
        default: The split protocol where none was chosen.

    Raises:
        InputError: A row is not what it should be; names file, line and column.
        ConfigError: The label or the schema does not fit the table.
        DatasetError: There are no rows to train on.

    """
    raw = raw.with_missing(schema.missing)
    check_columns(schema, raw)
    schema, notes = with_formats(raw, schema)
    labels = fit_labels(raw, schema)
    rows = check_rows(raw, schema, labels, config.bad_rows)
    division = divide(raw, schema, rows.labels, rows.bad, config, default=default)
    division = replace(division, notes=notes + division.notes)
    table = CheckedTable(raw=raw, schema=schema, labels=labels, rows=rows, division=division)
    if not len(table.train):
        raise DatasetError("no row is left to train on; see prepare.fractions")
    schema = with_leaks(table.fitting_rows(), schema)
    table = replace(table, schema=schema)
    if config.features.select == "given":
        return table
    from dlrm.data.features.auto import choose

    if schema.task == "regression":
        raise ConfigError("features auto is for clicks, but the task is regression")
    schema = choose(table.fitting_rows(), schema, seed=config.seed)
    return replace(table, schema=schema)


def raw_table(
    source: Source, folder: Path, advance: Callable[[int], None] = lambda _: None
) -> RawTable:
    """Return the rows of any source as Parquet parts.

    Args:
        source: Where they come from.
        folder: An empty folder for the parts.
        advance: Hears of the number of rows as they come.

    Raises:
        InputError: A row is not what it should be; names file, line and column.
        DatasetError: There are no rows.

    """
    if isinstance(source, Table):
        table = source.table(folder, advance)
    else:
        parts: list[Part] = []
        first = 1
        for number, frame in enumerate(source.read()):
            out = folder / f"{number:06}.parquet"
            frame.write_parquet(out)
            parts.append(Part(out, frame.height, source.name, first))
            first += frame.height
            advance(frame.height)
        if not parts:
            raise DatasetError("the log has no good row")
        table = RawTable(tuple(parts))
    if not table.rows:
        origins = dict.fromkeys(str(part.origin) for part in table.parts)
        raise DatasetError(f"{', '.join(origins)}: the table has no rows")
    return table
