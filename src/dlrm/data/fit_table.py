"""Any rows, fitted on the training rows.

The raw rows become Parquet parts; the schema is given, or inferred from them; rows are divided into
splits; features are fitted on the training rows alone, one column at a time; and block by block the
rows become arrays.
"""

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.progress import Progress

from dlrm import terminal
from dlrm.data.bad_rows import BadRows, CountsBadRows
from dlrm.data.checked_rows import CheckedRows, check_rows
from dlrm.data.division import divide
from dlrm.data.features.category import Category
from dlrm.data.features.columns import Column, Columns
from dlrm.data.features.features import Feature, Features
from dlrm.data.features.fit import FittingRows, fit
from dlrm.data.features.labels import Label, fit_labels
from dlrm.data.features.list import List
from dlrm.data.features.show import show
from dlrm.data.features.table_schema import check_columns, inferred_schema
from dlrm.data.features.texts import as_numbers, as_texts
from dlrm.data.fitted import TRUTH, Block
from dlrm.data.options import PrepareConfig
from dlrm.data.sources.raw_table import Part, RawTable
from dlrm.data.sources.source import Source, Table
from dlrm.data.split import SPLITS
from dlrm.errors import ConfigError, DatasetError

_TRAIN = SPLITS.index("train")


class CheckedTable:
    """A table whose rows are checked and divided, and whose schema is settled.

    Args:
        source: Where the rows come from.
        schema: What the columns are, where that is known before they are read.
        config: How they are prepared.
        folder: An empty folder for Parquet parts.
        advance: Hears of the number of rows as they come.
        strict: Whether a text among numbers is an error already.

    Raises:
        InputError: A row is not what it should be; names file, line and column.
        ConfigError: The label or the schema does not fit the table.
        DatasetError: There are no rows, or none to train on.

    """

    def __init__(
        self,
        source: Source,
        schema: Columns | None,
        config: PrepareConfig,
        folder: Path,
        advance: Callable[[int], None] = lambda _: None,
        *,
        strict: bool = True,
    ):
        self.raw: RawTable = raw_table(source, folder, advance)
        if not self.raw.rows:
            raise DatasetError("the table has no rows")
        self.schema: Columns = schema or inferred_schema(self.raw, config, strict=strict)
        self.config, self._fixed = config, is_fixed(source)

    def check(self) -> None:
        """Check labels and numbers, and divide the rows into splits."""
        check_columns(self.schema, self.raw)
        self.labels: tuple[Label, ...] = fit_labels(self.raw, self.schema)
        self.checked: CheckedRows = check_rows(
            self.raw, self.schema, self.labels, self.config.bad_rows
        )
        default = "kaggle" if self._fixed else "random"
        self.where: NDArray[np.int8] = divide(
            self.raw, self.checked.bad, self.config, default=default
        )
        self.train: NDArray[np.intp] = np.flatnonzero(self.where == _TRAIN)
        if not len(self.train):
            raise DatasetError("no row is left to train on; see prepare.fractions")
        if self.config.features.select == "auto":
            from dlrm.data.features.auto import choose

            if self.schema.task == "regression":
                raise ConfigError("features auto is for clicks, but the task is regression")
            self.schema = choose(self.fitting_rows(), self.schema, seed=self.config.seed)

    def fitting_rows(self) -> FittingRows:
        """Return the rows that features are fitted to."""
        return FittingRows(
            table=self.raw,
            train=self.train,
            labels=self.checked.labels[self.train, 0],
            good=np.flatnonzero(~self.checked.bad),
        )


class FittedTable:
    """A table, fitted."""

    def __init__(self, table: CheckedTable, source: Source, bar: Progress):
        self._table, self._bar = table, bar
        schema = table.schema
        features: list[Feature] = []
        self._training: dict[tuple[int, str], NDArray[np.float32]] = {}
        task = bar.add_task("Fitting features", total=len(schema.used()) + len(schema.crosses))
        for feature, own in fit(table.fitting_rows(), schema, seed=table.config.seed):
            self._training |= {(len(features), name): values for name, values in own.items()}
            features.append(feature)
            bar.advance(task)
        self.features = Features(
            source=source.name,
            columns=schema,
            targets=table.labels,
            features=tuple(features),
            layout=getattr(source, "layout", None),
        )
        self.bad_rows: BadRows = table.checked.bad_rows
        if isinstance(source, CountsBadRows):
            self.bad_rows = source.bad
        self.rows = table.raw.rows - table.checked.bad_rows.total
        self.counted_rows = len(table.train)
        # Only a generated log knows it: in a table of one's own, it is a column like any other.
        self.truth = TRUTH in table.raw.types and is_fixed(source)

    def inputs(self) -> list[dict[str, Any]]:
        """Return what is known of each input; says on the terminal which sequences were cut."""
        raw = self._table.raw
        missing = {each.name: self._missing(each) for each in self._table.schema.used()}
        described = []
        for feature, made in self.features.inputs:
            lacking = max(missing[name] for name in feature.columns)
            rare = None
            if isinstance(feature, Category) and made.num_embeddings and feature.table is not None:
                rare = self._rare(feature)
            described.append(
                {
                    "name": made.name,
                    "kind": "dense" if made.num_embeddings is None else made.kind,
                    "num_embeddings": made.num_embeddings,
                    "missing": lacking,
                    "missing_rate": lacking / raw.rows,
                    "rare": rare,
                }
            )
            if isinstance(feature, List) and (longer := self._too_long(feature)):
                described[-1]["cut"] = longer
        return described

    def blocks(self) -> Generator[Block, None, None]:
        """Yield all rows."""
        table, start = self._table, 0
        # Each training row's place among them.
        rank = np.cumsum(table.where == _TRAIN) - 1
        numbers = [
            (position, made.name)
            for position, feature in enumerate(self.features.features)
            for made in feature.inputs()
            if made.num_embeddings is None
        ]
        own = {numbers.index(place): values for place, values in self._training.items()}
        names = [*self.features.needed, *([TRUTH] if self.truth else [])]
        for frame in table.raw.blocks(names):
            rows = slice(start, start + frame.height)
            encoded = self.features.encode(frame)
            train = table.where[rows] == _TRAIN
            for position, values in own.items():
                encoded.dense[train, position] = values[rank[rows][train]]
            weights = table.checked.weights
            encoded = replace(
                encoded,
                labels=table.checked.labels[rows],
                weights=None if weights is None else weights[rows],
                truth=frame[TRUTH].cast(pl.Float32).to_numpy() if self.truth else None,
            )
            yield Block(encoded, _pieces(table.where[rows]))
            start += frame.height

    def _missing(self, column: Column) -> int:
        """Return in how many rows a column is missing."""
        values = self._table.raw.column(column.name)
        if column.kind == "number":
            return as_numbers(values, time=column.time)[0].null_count()
        return (values if values.dtype.is_nested() else as_texts(values)).null_count()

    def _rare(self, feature: Category) -> int:
        """Return in how many training rows a category has no id of its own."""
        if feature.table_name:
            ids = feature.encode(self._table.fitting_rows().frame(*feature.columns)).ids[0]
            return int((np.asarray(ids) == feature.num_embeddings - 1).sum())
        counted = feature.vocabulary().frame["count"].sum()
        rows = self.rows if feature.values.whole_log else self.counted_rows
        return max(0, rows - int(counted))

    def _too_long(self, feature: List) -> int:
        if not feature.max_length:
            return 0
        longer = feature.too_long(self._table.raw.column(feature.name))
        if longer:
            terminal.err.print(
                f"{feature.name}: {longer:,} of {self._table.raw.rows:,} sequences are longer than "
                f"{feature.max_length}; the newest {feature.max_length} values are kept",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
        return longer


def fit_table(
    source: Source,
    schema: Columns | None,
    config: PrepareConfig,
    folder: Path,
    bar: Progress,
    *,
    quiet: bool = False,
) -> FittedTable:
    """Fit a table.

    Args:
        source: Where the rows come from.
        schema: What the columns are; None to infer it.
        config: How they are prepared.
        folder: The dataset's; `spill` in it may go when all is done.
        bar: Shows how far it is.
        quiet: Do not print what the columns were taken for.

    Raises:
        InputError: A row is not what it should be; names file, line and column.
        ConfigError: The label or the schema does not fit the table.
        DatasetError: There are no rows, or none to train on.

    """
    spill = folder / "spill"
    spill.mkdir()
    task = bar.add_task("Reading rows", total=source.rows())
    table = CheckedTable(source, schema, config, spill, lambda rows: bar.advance(task, rows))
    bar.update(task, total=table.raw.rows, completed=table.raw.rows)
    table.check()
    if not quiet:
        show(table.schema)
    return FittedTable(table, source, bar)


def raw_table(source: Source, folder: Path, advance: Callable[[int], None]) -> RawTable:
    """Return the rows of any source as Parquet parts.

    Args:
        source: Where they come from.
        folder: An empty folder for the parts.
        advance: Hears of the number of rows as they come.

    """
    if isinstance(source, Table):
        return source.table(folder, advance)
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
    return RawTable(tuple(parts))


def is_fixed(source: Source) -> bool:
    """Whether the format of a source is that of a log, which says what each column is."""
    schema = source.schema()
    return schema is not None and schema.whole_log


def _pieces(where: NDArray[np.int8]) -> list[tuple[str, Any]]:
    return [(name, np.flatnonzero(where == number)) for number, name in enumerate(SPLITS)]
