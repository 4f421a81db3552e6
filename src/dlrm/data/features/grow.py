"""Features that take up the values of new rows: ids stay, new values come behind them."""

from dataclasses import replace

import polars as pl

from dlrm.data.features.category import Category
from dlrm.data.features.features import Features
from dlrm.data.features.fit import FittingRows
from dlrm.data.features.list import List, split_lists
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
        if not _grows(feature):
            continue
        frame = rows.frame(*feature.columns)
        values = (
            split_lists(frame[feature.name], feature.separator)[0]
            if isinstance(feature, List)
            else feature.keys(frame)
        )
        place = id(feature.table)
        tables[place] = feature.table
        keys.setdefault(place, []).append(values)
        least[place] = max(least.get(place, 1), feature.values.min_count)
    larger = {place: _larger(table, keys[place], least[place]) for place, table in tables.items()}
    grown = {
        tables[place].name: (table.kept - tables[place].kept, table.kept)
        for place, table in larger.items()
        if table.kept > tables[place].kept
    }
    if not grown:
        return features, {}
    return (
        replace(
            features,
            features=tuple(
                replace(feature, table=larger[id(feature.table)]) if _grows(feature) else feature
                for feature in features.features
            ),
            folder=None,
        ),
        grown,
    )


def _grows(feature: object) -> bool:
    if isinstance(feature, Category):
        return feature.table is not None and feature.counted is None
    return isinstance(feature, List) and feature.table is not None


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
