"""Features of a table, fitted on its training rows; or grown by the values of new ones."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.category import Category
from dlrm.data.features.column import LISTS, Column
from dlrm.data.features.columns import Columns
from dlrm.data.features.features import Feature, Features
from dlrm.data.features.list import List, split_lists
from dlrm.data.features.number import Number
from dlrm.data.features.texts import NumberReading
from dlrm.data.features.value_table import ValueTable
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.vocabulary import Vocabulary, distinct, fold


@dataclass(frozen=True, slots=True, kw_only=True)
class FittingRows:
    """The rows that features are fitted to."""

    table: RawTable
    """All rows."""
    train: NDArray[np.intp]
    """(n,) numbers of the training rows, rising"""
    labels: NDArray[Any]
    """(n,) their labels, of several the first: clicks as integers, or any numbers"""
    good: NDArray[np.intp]
    """Numbers of all rows that are not bad, for what is numbered over the whole log"""

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
    shared: dict[str, ValueTable] = {}
    for column in schema.used():
        if column.kind == "number":
            reading = schema.reading(column)
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
            yield _of_whole_log(column, rows), {}
        else:
            yield Category.fit(
                (column.name,),
                column.values,
                rows.frame(column.name),
                rows.labels,
                texts={column.name: rows.texts(column.name)},
                seed=seed,
                shared=table,
                table_name=name,
            )
    for cross in schema.crosses:
        buckets = tuple(numbers[name] for name in cross.columns if name in numbers)
        frame = rows.frame(*cross.columns)
        yield Category.fit(
            cross.columns, cross.values, frame, rows.labels, seed=seed, buckets=buckets
        )


def _shared_values(name: str, columns: tuple[Column, ...], rows: FittingRows) -> ValueTable:
    """Return the values of all columns that share a table, their counts added up."""
    counted = []
    for column in columns:
        if column.kind in LISTS:
            values = rows.frame(column.name)[column.name]
            keys, _ = split_lists(values, column.separator)
        else:
            keys = rows.texts(column.name)
        counted.append(distinct(keys)[0].with_columns(pl.col("count").cast(pl.Int64)))
    together = pl.concat(counted)
    vocabulary, _ = Vocabulary.build(name, together, min_count=columns[0].values.min_count)
    return ValueTable(name, vocabulary.frame, kept=vocabulary.frame.height)


def _of_whole_log(column: Column, rows: FittingRows) -> Category:
    values = rows.table.column(column.name)[rows.good]
    counted, _ = distinct(fold(values, column.values.modulo or None))
    vocabulary, _ = Vocabulary.build(
        column.name, counted, column.values.ids, column.values.min_count
    )
    table = ValueTable(column.name, vocabulary.frame, kept=vocabulary.frame.height)
    return Category(columns=(column.name,), values=column.values, table=table)


def grow(features: Features, rows: FittingRows) -> tuple[Features, dict[str, tuple[int, int]]]:
    """Return features whose vocabularies have the values of new rows, too.

    A value that comes `min_count` times in the new training rows gets an id behind those that are
    there. Numbers, hashed values and categories with counts or target means beside them stay as
    they were fitted.

    Returns:
        The features, and for each table that grew how many values are new, and how many there are.

    """
    keys: dict[int, list[pl.Series]] = {}
    least: dict[int, int] = {}
    tables: dict[int, ValueTable] = {}
    for feature in features.features:
        table = _growing(feature)
        if table is None or isinstance(feature, Number):
            continue
        frame = rows.frame(*feature.columns)
        if isinstance(feature, List):
            values, _ = split_lists(frame[feature.name], feature.separator)
        else:
            values = feature.keys(frame)
        tables[id(table)] = table
        keys.setdefault(id(table), []).append(values)
        least[id(table)] = max(least.get(id(table), 1), feature.values.min_count)
    larger = {place: _larger(table, keys[place], least[place]) for place, table in tables.items()}
    grown = {
        tables[place].name: (table.kept - tables[place].kept, table.kept)
        for place, table in larger.items()
        if table.kept > tables[place].kept
    }
    if not grown:
        return features, {}
    renewed = tuple(
        feature
        if isinstance(feature, Number) or (table := _growing(feature)) is None
        else replace(feature, table=larger[id(table)])
        for feature in features.features
    )
    return replace(features, features=renewed, folder=None), grown


def _growing(feature: Feature) -> ValueTable | None:
    """Return the values of a feature where these can become more."""
    if isinstance(feature, Number) or (isinstance(feature, Category) and feature.counted):
        return None
    return feature.table


def _larger(table: ValueTable, keys: list[pl.Series], least: int) -> ValueTable:
    frame = table.frame
    dtype = frame.schema["value"]
    groups, _ = distinct(pl.concat([values.cast(dtype) for values in keys], rechunk=True))
    new = groups.filter(
        (pl.col("count") >= least) & pl.Series(table.ids(groups["value"]) == table.kept)
    )
    if new.is_empty():
        return table
    added = new.select("value", pl.col("count").cast(frame.schema["count"]))
    frame = pl.concat([frame.select("value", "count"), added])
    return ValueTable(table.name, frame, kept=frame.height)
