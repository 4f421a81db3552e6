"""Any rows, fitted on the training rows.

The raw rows become Parquet parts; the schema is given, or inferred from them; rows are divided into
splits; features are fitted on the training rows alone, one column at a time; and block by block the
rows become arrays.
"""

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.progress import Progress

from dlrm import terminal
from dlrm.data.checked import TRAIN, CheckedTable, check_table, raw_table
from dlrm.data.features.category import Category
from dlrm.data.features.column import Column
from dlrm.data.features.columns import Columns
from dlrm.data.features.features import Feature, Features
from dlrm.data.features.fit import fit
from dlrm.data.features.list import List
from dlrm.data.features.show import show
from dlrm.data.features.table_schema import inferred_schema
from dlrm.data.fitted import TRUTH, Block, described_input
from dlrm.data.options import PrepareConfig
from dlrm.data.sources.reading import Reading
from dlrm.data.sources.source import BadRows, CountsBadRows, Source, has_fixed_format
from dlrm.data.split import SPLITS, Rows


class FittedTable:
    """A table, fitted."""

    def __init__(self, table: CheckedTable, source: Source, seed: int, bar: Progress):
        self._table, schema = table, table.schema
        features: list[Feature] = []
        self._training: dict[tuple[int, str], NDArray[np.float32]] = {}
        task = bar.add_task("Fitting features", total=len(schema.used()) + len(schema.crosses))
        for feature, own in fit(table.fitting_rows(), schema, seed=seed):
            self._training |= {(len(features), name): values for name, values in own.items()}
            features.append(feature)
            bar.advance(task)
        self.features = Features(
            source=source.name,
            columns=schema,
            targets=table.labels,
            features=tuple(features),
            layout=getattr(source, "layout", None),
            reading=getattr(source, "reading", Reading()),
        )
        self.bad_rows: BadRows = table.rows.bad_rows
        if isinstance(source, CountsBadRows):
            self.bad_rows = source.bad
        self.rows = int((~table.rows.bad).sum())
        self.counted_rows = len(table.train)
        self.notes = table.division.notes
        # Only a generated log knows it: in a table of one's own, it is a column like any other.
        self.truth = TRUTH in table.raw.types and has_fixed_format(source)

    def inputs(self) -> list[dict[str, Any]]:
        """Return what is known of each input; says on the terminal which sequences were cut."""
        raw = self._table.raw
        missing = {column.name: self._missing(column) for column in self._table.schema.used()}
        described = []
        for feature, model_input in self.features.inputs:
            lacking = max(missing[name] for name in feature.columns)
            rare = None
            if (
                isinstance(feature, Category)
                and model_input.num_embeddings
                and feature.table is not None
            ):
                rare = self._rare(feature)
            described.append(
                described_input(model_input, missing=lacking, rows=raw.rows, rare=rare)
            )
            if isinstance(feature, List) and (longer := self._too_long(feature)):
                described[-1]["cut"] = longer
        return described

    def blocks(self) -> Generator[Block, None, None]:
        """Yield all rows."""
        table, start = self._table, 0
        # Each training row's place among them.
        rank = np.cumsum(table.where == TRAIN) - 1
        numbers = [
            (position, model_input.name)
            for position, feature in enumerate(self.features.features)
            for model_input in feature.inputs()
            if model_input.num_embeddings is None
        ]
        own = {numbers.index(place): values for place, values in self._training.items()}
        names = [*self.features.needed, *([TRUTH] if self.truth else [])]
        for frame in table.raw.blocks(names):
            rows = slice(start, start + frame.height)
            encoded = self.features.encode(frame)
            train = table.where[rows] == TRAIN
            for position, values in own.items():
                encoded.dense[train, position] = values[rank[rows][train]]
            weights = table.rows.weights
            encoded = replace(
                encoded,
                labels=table.rows.labels[rows],
                weights=None if weights is None else weights[rows],
                truth=frame[TRUTH].cast(pl.Float32).to_numpy() if self.truth else None,
            )
            yield Block(encoded, _pieces(table.where[rows]))
            start += frame.height

    def _missing(self, column: Column) -> int:
        """Return in how many rows a column is missing."""
        raw = self._table.raw
        if column.kind == "number":
            return raw.numbers(column.name, self._table.schema.reading(column))[0].null_count()
        nested = raw.types[column.name].is_nested()
        return (raw.column(column.name) if nested else raw.texts(column.name)).null_count()

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
    raw = raw_table(source, spill, lambda rows: bar.advance(task, rows))
    bar.update(task, total=raw.rows, completed=raw.rows)
    schema = schema or inferred_schema(raw, config)
    default = "kaggle" if has_fixed_format(source) else "random"
    table = check_table(raw, schema, config, default=default)
    if not quiet:
        show(table.schema)
        terminal.say(table.division.notes)
    return FittedTable(table, source, config.seed, bar)


def _pieces(where: NDArray[np.int8]) -> list[tuple[str, Rows]]:
    return [(name, np.flatnonzero(where == number)) for number, name in enumerate(SPLITS)]
