"""Any rows, fitted on the training rows.

The raw rows become Parquet parts; the schema is given, or inferred from them; rows are divided into
splits; features are fitted on the training rows alone, one column at a time; and block by block the
rows become arrays.
"""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from functools import partial
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
from dlrm.data.fitted import TRUTH, Block, Fitted, described_input
from dlrm.data.options import PrepareConfig
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.sources.reading import Reading
from dlrm.data.sources.source import CountsBadRows, Source, has_fixed_format
from dlrm.data.split import SPLITS, Protocol, Rows


def fit_table(
    source: Source,
    schema: Columns | None,
    config: PrepareConfig,
    folder: Path,
    bar: Progress,
    *,
    quiet: bool = False,
) -> Fitted:
    """Fit a table."""
    raw = read_rows(source, folder, bar)
    schema = schema or inferred_schema(raw, config)
    table = check_table(raw, schema, config, default=default_protocol(source))
    schema = table.schema
    if not quiet:
        show(schema)
        terminal.say(table.notes)
    fitted: list[Feature] = []
    own: dict[tuple[int, str], NDArray[np.float32]] = {}
    task = bar.add_task("Fitting features", total=len(schema.used()) + len(schema.crosses))
    for feature, numbers in fit(table.fitting_rows(), schema, seed=config.seed):
        own |= {(len(fitted), name): values for name, values in numbers.items()}
        fitted.append(feature)
        bar.advance(task)
    features = Features(
        source=source.name,
        columns=schema,
        targets=table.targets,
        features=tuple(fitted),
        layout=getattr(source, "layout", None),
        reading=getattr(source, "reading", Reading()),
    )
    # Only a generated log knows it: in a table of one's own, it is a column like any other.
    truth = TRUTH in raw.types and has_fixed_format(source)
    return Fitted(
        features=features,
        rows=table.good_rows,
        counted_rows=len(table.train),
        bad_rows=source.bad if isinstance(source, CountsBadRows) else table.bad_rows,
        blocks=_blocks(table, features, own, truth=truth),
        inputs=partial(_inputs, table, features),
        truth=truth,
        notes=table.notes,
    )


def read_rows(source: Source, folder: Path, bar: Progress) -> RawTable:
    """Return the rows of a source, in `spill` in the folder of a dataset."""
    (spill := folder / "spill").mkdir()
    task = bar.add_task("Reading rows", total=source.rows())
    raw = raw_table(source, spill, lambda rows: bar.advance(task, rows))
    bar.update(task, total=raw.rows, completed=raw.rows)
    return raw


def default_protocol(source: Source) -> Protocol:
    """Return how rows are divided where nobody says it."""
    return "kaggle" if has_fixed_format(source) else "random"


def encoded_blocks(
    table: CheckedTable, features: Features, names: Iterable[str] = ()
) -> Iterator[tuple[pl.DataFrame, slice, Block]]:
    """Yield all rows as frames, with some more columns, and encoded; and which rows these are."""
    weights, start = table.weights, 0
    for frame in table.raw.blocks([*features.needed, *names]):
        rows = slice(start, start + frame.height)
        encoded = replace(
            features.encode(frame),
            labels=table.labels[rows],
            weights=None if weights is None else weights[rows],
        )
        where = table.where[rows]
        pieces: list[tuple[str, Rows]] = [
            (name, np.flatnonzero(where == number)) for number, name in enumerate(SPLITS)
        ]
        yield frame, rows, Block(encoded, pieces)
        start += frame.height


def _blocks(
    table: CheckedTable,
    features: Features,
    training: dict[tuple[int, str], NDArray[np.float32]],
    *,
    truth: bool,
) -> Generator[Block, None, None]:
    """Yield all rows, of which training rows have numbers of their own."""
    # Each training row's place among them.
    rank = np.cumsum(table.where == TRAIN) - 1
    numbers = [
        (position, model_input.name)
        for position, feature in enumerate(features.features)
        for model_input in feature.inputs()
        if model_input.num_embeddings is None
    ]
    own = {numbers.index(place): values for place, values in training.items()}
    for frame, rows, block in encoded_blocks(table, features, [TRUTH] if truth else ()):
        train = table.where[rows] == TRAIN
        for position, values in own.items():
            block.encoded.dense[train, position] = values[rank[rows][train]]
        known = frame[TRUTH].cast(pl.Float32).to_numpy() if truth else None
        yield block._replace(encoded=replace(block.encoded, truth=known))


def _inputs(table: CheckedTable, features: Features) -> list[dict[str, Any]]:
    """Return what is known of each input; says on the terminal which sequences were cut."""
    missing = {column.name: _missing(table, column) for column in table.schema.used()}
    described = []
    for feature, model_input in features.inputs:
        rare = None
        if isinstance(feature, Category) and model_input.num_embeddings and feature.table:
            rare = _rare(table, feature)
        lacking = max(missing[name] for name in feature.columns)
        described.append(
            described_input(model_input, missing=lacking, rows=table.raw.rows, rare=rare)
        )
        if isinstance(feature, List) and (longer := _too_long(table, feature)):
            described[-1]["cut"] = longer
    return described


def _missing(table: CheckedTable, column: Column) -> int:
    if column.kind == "number":
        return table.raw.numbers(column.name, table.schema.reading(column))[0].null_count()
    nested = table.raw.types[column.name].is_nested()
    return (table.raw.column if nested else table.raw.texts)(column.name).null_count()


def _rare(table: CheckedTable, feature: Category) -> int:
    """Return in how many training rows a category has no id of its own."""
    if feature.table_name:
        ids = feature.encode(table.fitting_rows().frame(*feature.columns)).ids[0]
        return int((np.asarray(ids) == feature.num_embeddings - 1).sum())
    counted = feature.vocabulary().frame["count"].sum()
    rows = table.good_rows if feature.values.whole_log else len(table.train)
    return max(0, rows - int(counted))


def _too_long(table: CheckedTable, feature: List) -> int:
    longer = feature.too_long(table.raw.column(feature.name)) if feature.max_length else 0
    if longer:
        terminal.err.print(
            f"{feature.name}: {longer:,} of {table.raw.rows:,} sequences are longer than "
            f"{feature.max_length}; the newest {feature.max_length} values are kept",
            soft_wrap=True,
            highlight=False,
        )
    return longer
