"""Features of a table, fitted on its training rows; or grown by the values of new ones."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, TypeGuard

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.category import Category
from dlrm.data.features.column import LISTS, Column
from dlrm.data.features.columns import Columns
from dlrm.data.features.features import Feature, Features
from dlrm.data.features.list import List, split_lists
from dlrm.data.features.number import Number
from dlrm.data.features.rows import Rows, as_series
from dlrm.data.features.texts import NumberReading
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.threads import in_order
from dlrm.data.vocabulary import Vocabulary, distinct, fold

MOST_TOGETHER, VALUES_TOGETHER = 4, 1 << 24
"""Columns of a whole log that are read together at most, and values: some 200 MB where all of them
differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittingRows:
    """The rows that features are fitted to."""

    table: RawTable
    """All rows."""
    train: NDArray[np.intp]
    """(n,) numbers of the training rows, rising"""
    labels: NDArray[Any]
    """(n,) their labels, of several the first: clicks as integers, or any numbers"""
    good: NDArray[np.bool_]
    """Which of all rows are not bad, for what is numbered over the whole log"""

    def frame(self, *names: str) -> pl.DataFrame:
        """Return some columns of the training rows."""
        columns = [self.table.column(name)[self.train].alias(name) for name in names]
        return pl.DataFrame(columns)

    def texts(self, name: str) -> pl.Series:
        """Return the texts of a column of the training rows."""
        return self.table.texts(name)[self.train]

    def numbers(self, name: str, reading: NumberReading) -> pl.Series:
        """Return the numbers of a column of the training rows, null where missing."""
        return self.table.numbers(name, reading)[0][self.train]


def fit(
    rows: FittingRows, schema: Columns, *, seed: int = 0
) -> Iterator[tuple[Feature, dict[str, NDArray[np.float32]]]]:
    """Fit the features of a schema one by one.

    Yields:
        A fitted feature, and by name those of its numbers that training rows get.

    """
    numbers: dict[str, Number] = {}
    shared: dict[str, Vocabulary] = {}
    # Polars alone uses all cores for some of them.
    groups = in_order(partial(_of_whole_log, rows=rows), _grouped(schema, rows), 2)
    numbered = chain.from_iterable(groups)
    for column in schema.used():
        if column.kind == "number":
            reading = schema.reading(column)
            # Nothing is fitted to the numbers of a log, which are many.
            known = pl.Series([], dtype=pl.Float64)
            if column.scale != "log1p" or column.buckets or column.calendar:
                known = rows.numbers(column.name, reading)
            numbers[column.name] = Number.fit(column, known, reading)
            yield numbers[column.name], {}
            continue
        sharing = schema.sharing(column.table_name)
        name = column.table_name if column.table or len(sharing) > 1 else ""
        if len(sharing) > 1 and name not in shared and not column.values.hash_rows:
            shared[name] = _shared_values(name, sharing, rows)
        table = shared.get(name)
        if column.kind in LISTS:
            values = rows.frame(column.name)[column.name]
            yield List.fit(column, values, shared=table, table_name=name), {}
        elif column.values.whole_log:
            yield next(numbered), {}
        else:
            yield Category.fit(
                (column.name,),
                column.values,
                Rows(rows.frame(column.name), {column.name: rows.texts(column.name)}),
                rows.labels,
                seed=seed,
                shared=table,
                table_name=name,
            )
    for cross in schema.crosses:
        buckets = tuple(numbers[name] for name in cross.columns if name in numbers)
        crossed = rows.frame(*cross.columns)
        yield Category.fit(
            cross.columns, cross.values, crossed, rows.labels, seed=seed, buckets=buckets
        )


def _shared_values(name: str, columns: tuple[Column, ...], rows: FittingRows) -> Vocabulary:
    """Return the values of all columns that share a table, their counts added up."""
    counted = []
    for column in columns:
        if column.kind in LISTS:
            values = rows.frame(column.name)[column.name]
            keys, _ = split_lists(values, column.separator)
        else:
            keys = rows.texts(column.name)
        counted.append(distinct(as_series(keys))[0].with_columns(pl.col("count").cast(pl.Int64)))
    together = pl.concat(counted)
    return Vocabulary.build(name, together, min_count=columns[0].values.min_count)


def _grouped(schema: Columns, rows: FittingRows) -> Generator[list[Column], None, None]:
    """Yield the columns that are numbered over a whole log, some at a time.

    To read a block of several columns takes little longer than of one, but the distinct values of
    all its blocks are in memory: a column of a long log is read alone.
    """
    columns = [column for column in schema.used() if column.values.whole_log]
    together = max(1, min(MOST_TOGETHER, VALUES_TOGETHER // max(rows.table.rows, 1)))
    for start in range(0, len(columns), together):
        yield columns[start : start + together]


def _of_whole_log(columns: list[Column], rows: FittingRows) -> list[Category]:
    """Number the values of some columns of a log in its order."""
    parts: dict[str, list[pl.DataFrame]] = {column.name: [] for column in columns}
    start = 0
    for block in rows.table.blocks(list(parts)):
        good = rows.good[start : (start := start + block.height)]
        frame = block if good.all() else block.filter(pl.Series(good))
        for column in columns:
            values = fold(frame[column.name], column.values.modulo or None)
            parts[column.name].append(distinct(values)[0])
    categories = []
    for column in columns:
        name, settings = column.name, column.values
        together = pl.concat(parts.pop(name))
        table = Vocabulary.build(name, together, settings.ids, settings.min_count)
        categories.append(Category(columns=(name,), values=settings, table=table))
    return categories


def grow(features: Features, rows: FittingRows) -> tuple[Features, dict[str, tuple[int, int]]]:
    """Return features whose vocabularies have the values of new rows, too.

    A value that comes `min_count` times in the new training rows gets an id behind those that are
    there. Numbers, hashed values and categories with counts or target means beside them stay as
    they were fitted.

    Returns:
        The features, and for each table that grew how many values are new, and how many there are.

    """
    growing = [feature for feature in features.features if _grows(feature)]
    larger = {
        id(table): _larger(table, [feature for feature in growing if feature.table is table], rows)
        for table in features.tables
    }
    grown = {
        table.name: (larger[id(table)].num_ids - table.num_ids, larger[id(table)].num_ids)
        for table in features.tables
        if larger[id(table)] is not table
    }
    if not grown:
        return features, {}
    renewed = tuple(
        replace(feature, table=larger[id(feature.table)]) if _grows(feature) else feature
        for feature in features.features
    )
    return replace(features, features=renewed, folder=None), grown


def _grows(feature: Feature) -> TypeGuard[Category | List]:
    """Whether the values of a feature can become more."""
    if isinstance(feature, Number) or feature.table is None:
        return False
    return isinstance(feature, List) or feature.counted is None


def _larger(table: Vocabulary, sharing: list[Category | List], rows: FittingRows) -> Vocabulary:
    """Return a table with the new values of the features that look it up; itself without any."""
    if not sharing:
        return table
    keys = [pl.Series([], dtype=table.frame.schema["value"])]
    for feature in sharing:
        frame = rows.frame(*feature.columns)
        if isinstance(feature, List):
            values, _ = split_lists(frame[feature.name], feature.separator)
        else:
            values = feature.keys(Rows(frame))
        keys.append(as_series(values).cast(keys[0].dtype))
    groups, _ = distinct(pl.concat(keys, rechunk=True))
    least = max(feature.values.min_count for feature in sharing)
    new = groups.filter(
        (pl.col("count") >= least) & pl.Series(table.ids(groups["value"]) == table.num_ids)
    )
    if new.is_empty():
        return table
    columns = table.frame.select("value", "count")
    return Vocabulary(table.name, pl.concat([columns, new.cast(columns.schema)]))
