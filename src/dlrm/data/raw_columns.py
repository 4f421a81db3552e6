"""Raw columns in rows that are encoded already: which inputs each is part of."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isnan

import numpy as np
from numpy.typing import NDArray

from dlrm.data.describe import MISSING, RARE
from dlrm.data.encoded import Encoded, Lists, take
from dlrm.data.features.features import Features
from dlrm.data.features.number import Number
from dlrm.data.store import Split
from dlrm.data.vocabulary import Vocabulary
from dlrm.schema import Schema

_LATEST = 6e10
"""Seconds from 1970 that a date can be away on either side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawColumn:
    """A column of the raw rows, and the inputs of the model that are made of it.

    A cross is an input of each of its columns.
    """

    name: str
    dense: tuple[int, ...] = ()
    """Columns of `Encoded.dense`."""
    ids: tuple[int, ...] = ()
    """Columns of `Encoded.ids`."""
    lists: tuple[int, ...] = ()
    """Features of `Encoded.lists`."""


def raw_columns(features: Features) -> list[RawColumn]:
    """Return the raw columns that are inputs, in the order in which features need them."""
    schema = features.schema
    dense = {feature.name: place for place, feature in enumerate(schema.dense)}
    ids = {feature.name: place for place, feature in enumerate(schema.one_hot_features)}
    lists = {feature.name: place for place, feature in enumerate(schema.list_features)}
    columns = []
    for name in features.needed:
        inputs = [one for feature, one in features.inputs if name in feature.columns]
        numbers = [one.name for one in inputs if one.num_embeddings is None]
        categories = [one.name for one in inputs if one.num_embeddings is not None]
        columns.append(
            RawColumn(
                name=name,
                dense=tuple(dense[number] for number in numbers),
                ids=tuple(ids[category] for category in categories if category in ids),
                lists=tuple(lists[category] for category in categories if category in lists),
            )
        )
    return columns


def rows_of(source: Split | Encoded, rows: NDArray[np.integer], schema: Schema) -> Encoded:
    """Return some rows, in the order in which they are named."""
    features = len(schema.list_features)
    return Encoded(
        source.dense[rows],
        source.ids[rows],
        None if source.labels is None else source.labels[rows],
        None if source.lists is None else take(source.lists, features, rows),
        None if source.weights is None else source.weights[rows],
    )


def with_values_of(
    encoded: Encoded, column: RawColumn, other: Encoded, rows: NDArray[np.integer]
) -> Encoded:
    """Return rows in which one raw column has the values of other rows.

    Args:
        encoded: n rows.
        column: That changes.
        other: m rows.
        rows: (n,) which of these each row has its value of.

    """
    dense, ids, lists = encoded.dense.copy(), encoded.ids.copy(), encoded.lists
    dense[:, list(column.dense)] = other.dense[rows[:, None], list(column.dense)]
    ids[:, list(column.ids)] = other.ids[rows[:, None], list(column.ids)]
    if column.lists and lists is not None and other.lists is not None:
        features = (len(lists.offsets) - 1) // len(encoded)
        both = Lists(
            np.concatenate([lists.ids, other.lists.ids]),
            np.concatenate([lists.offsets, other.lists.offsets[1:] + lists.offsets[-1]]),
        )
        # Each list by itself, as if every row had one only.
        places = np.arange(len(encoded) * features).reshape(-1, features)
        for feature in column.lists:
            places[:, feature] = (len(encoded) + rows) * features + feature
        lists = take(both, 1, places.ravel())
    return replace(encoded, dense=dense, ids=ids, lists=lists)


def value_of(features: Features, row: Encoded, column: RawColumn) -> str | float | list[str] | None:
    """Return the value of a column in a single row, as far as its inputs tell; None is missing."""
    schema, name = features.schema, column.name
    for place in column.ids:
        if schema.one_hot_features[place].name == name:
            return _text(features.vocabulary(name), int(row.ids[0, place]))
    for place in column.lists:
        if row.lists is not None and schema.list_features[place].name == name:
            first, last = row.lists.offsets[place : place + 2]
            vocabulary = features.vocabulary(name)
            return [_text(vocabulary, int(id)) or MISSING for id in row.lists.ids[first:last]]
    known = {schema.dense[place].name: row.dense[:, place] for place in column.dense}
    if name not in known or known.get(f"{name} missing", [0.0])[0]:
        return None
    raw = float(features.raw(name, known[name])[0])
    if isnan(raw):
        return None
    number = next(feature for feature in features.features if feature.columns == (name,))
    if isinstance(number, Number) and number.reading.time and abs(raw) < _LATEST:
        day = "" if 0 <= raw < 86_400 else "%Y-%m-%d "
        return datetime.fromtimestamp(round(raw), UTC).strftime(f"{day}%H:%M:%S")
    # As exact as float32 inputs are.
    return float(f"{raw:.6g}")


def _text(vocabulary: Vocabulary, id: int) -> str | None:
    return RARE if id == vocabulary.other else vocabulary.text(id)
