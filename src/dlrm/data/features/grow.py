"""Features that take up the values of new rows: ids stay, new values come behind them."""

from dataclasses import replace

import polars as pl

from dlrm.data.features.category import Category
from dlrm.data.features.features import Feature, Features
from dlrm.data.features.fit import FittingRows
from dlrm.data.features.list import List, split_lists
from dlrm.data.features.number import Number
from dlrm.data.features.value_table import ValueTable
from dlrm.data.vocabulary import distinct


def grow(features: Features, rows: FittingRows) -> tuple[Features, dict[str, tuple[int, int]]]:
    """Return features whose vocabularies have the values of new rows, too.

    A value that comes `min_count` times in the new training rows gets an id behind those that are
    there. Numbers, hashed values and categories with counts or target means beside them stay as
    they were fitted.

    Args:
        features: Of a run.
        rows: The new rows.

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
