"""What is in a prepared dataset, in numbers; and the rows of a split by a column, or by user."""

from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.data.features.features import Features
from dlrm.data.store import Dataset, Split
from dlrm.data.vocabulary import Vocabulary
from dlrm.errors import ConfigError, unknown
from dlrm.schema import Schema


def splits(dataset: Dataset) -> list[dict[str, Any]]:
    """Return the splits of a dataset in numbers, JSON-ready.

    Each has `name`, `rows`, and of its first label, and under `labels` of each where there are
    several, `positives` and `positive_rate`, or of a regression `mean`, `min` and `max`.
    """
    described = []
    for name, split in dataset.manifest["splits"].items():
        labels = {label: _label(label, split) for label in dataset.schema.labels}
        several = {"labels": labels} if len(labels) > 1 else {}
        first = labels[dataset.schema.labels[0]]
        described.append({"name": name, "rows": split["rows"], **first, **several})
    return described


def _label(name: str, split: dict[str, Any]) -> dict[str, float | None]:
    if "positives" not in split:
        return {key: split[key][name] for key in ("mean", "min", "max")}
    positives, rows = split["positives"][name], split["rows"]
    return {"positives": positives, "positive_rate": positives / rows if rows else None}


def features(dataset: Dataset, fitted: Features, head: int) -> list[dict[str, Any]]:
    """Return the features of a dataset in numbers, JSON-ready.

    Each has `name`, `kind` (`dense`, or that of a categorical feature), `missing_rate`, `values`
    (how many have an id of their own; None of a number), `rare` (samples whose value has none) and
    `head`, the values of the first ids: `id`, `value` (as the raw data write it; None is missing),
    `count`, and `share` of the rows in which values were counted.
    """
    manifest = dataset.manifest
    # Of a table, values are counted on its training rows alone.
    rows = max(1, manifest.get("counted_rows", manifest["rows"]))
    described = []
    for feature in manifest["features"]:
        values: list[dict[str, Any]] = []
        if feature["num_embeddings"] is not None and head > 0:
            vocabulary = fitted.vocabulary(feature["name"])
            values = [
                {"id": id, "value": vocabulary.text(id), "count": count, "share": count / rows}
                for id, count in enumerate(vocabulary.frame["count"].head(head).to_list())
            ]
        described.append(
            {
                **{key: feature[key] for key in ("name", "kind", "missing_rate")},
                "values": feature["num_embeddings"] and feature["num_embeddings"] - 1,
                "rare": feature["rare"] or 0,
                "head": values,
            }
        )
    return described


MISSING, RARE = "(missing)", "(rare or new)"


@dataclass(frozen=True, slots=True)
class Segments:
    """The rows of a split in K segments."""

    column: str
    names: tuple[str, ...]
    """K of them, in the order in which they are shown"""
    numbers: NDArray[np.int64]
    """(n,) segment of each row, 0 <= number < K"""


def by_column(split: Split, features: Features, column: str, most: int = 10) -> Segments:
    """Return the rows of a split by a column, in `most` segments besides the one for all others.

    A category has a segment for each of its most frequent values, the most frequent first, and one
    for all others. A number has its quantiles: each begins with the value in place floor(k n /
    `most`) of the sorted rows, and takes all that are equal to it.

    Raises:
        ConfigError: There is no such column or it holds lists (lists the choices), or `most` is not
            positive.

    """
    if most < 1:
        raise ConfigError(f"segments is {most}, expected 1 or more")
    dense = _dense(features.schema)
    if column in dense:
        return _quantiles(features, split.dense[:, dense.index(column)], column, most)
    ids = _ids(split, features.schema, column, besides=dense)
    present, places, counts = np.unique(ids, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    # A single other value has a name of its own.
    listed = len(order) if len(order) == most + 1 else min(most, len(order))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.minimum(np.arange(len(order)), listed)
    vocabulary = features.vocabulary(column)
    names = [_name(vocabulary, int(present[place])) for place in order[:listed]]
    if listed < len(order):
        names.append(f"other ({len(order) - listed:,} values)")
    return Segments(column, tuple(names), rank[places])


def users(split: Split, features: Features, column: str) -> NDArray[np.int64]:
    """Return the user of each row (n,): an id of the column, -1 where it is missing, rare or new.

    Raises:
        ConfigError: There is no such categorical column, or it holds lists; lists the choices.

    """
    if column in _dense(features.schema):
        problem = f'"{column}" holds numbers, but a user is a value of a category'
        choices = ", ".join(features.schema.feature_names)
        raise ConfigError(f"{problem}; choose one of: {choices}")
    ids = _ids(split, features.schema, column).astype(np.int64)
    vocabulary = features.vocabulary(column)
    nobody = vocabulary.frame["value"].is_null().arg_true().to_list()
    return np.where(np.isin(ids, [*nobody, vocabulary.other]), -1, ids)


def _dense(schema: Schema) -> tuple[str, ...]:
    return tuple(feature.name for feature in schema.dense)


def _ids(
    split: Split, schema: Schema, column: str, besides: tuple[str, ...] = ()
) -> NDArray[np.int32]:
    """Return the id of each row in a categorical column, (n,); `besides` could be chosen too."""
    if column not in schema.feature_names:
        raise unknown("column", column, (*schema.feature_names, *_dense(schema)))
    one_hot = [feature.name for feature in schema.one_hot_features]
    if column not in one_hot:
        raise ConfigError(
            f'"{column}" holds lists of ids, so that a row may have several values of it or none; '
            f"choose one of: {', '.join((*one_hot, *besides)) or '(there is no other column)'}"
        )
    return split.ids[:, one_hot.index(column)]


def _name(vocabulary: Vocabulary, number: int) -> str:
    if number == vocabulary.other:
        return RARE
    return vocabulary.text(number) or MISSING


def _quantiles(features: Features, values: NDArray[np.float32], column: str, most: int) -> Segments:
    ordered = np.sort(values)
    lows = np.unique(ordered[np.arange(most) * len(ordered) // most]) if len(values) else ordered
    starts = np.searchsorted(ordered, lows, side="left")
    highs = ordered[np.append(starts[1:], len(ordered))[: len(lows)] - 1]
    ends = (map(_shown, features.raw(column, edges)) for edges in (lows, highs))
    names = tuple(
        low if low == high else f"{low} to {high}" for low, high in zip(*ends, strict=True)
    )
    return Segments(column, names, np.searchsorted(lows, values, side="right") - 1)


def _shown(raw: float) -> str:
    if isnan(raw):
        return MISSING
    whole = round(raw)
    return f"{whole:,}" if abs(raw - whole) <= 1e-4 * max(1.0, abs(raw)) else f"{raw:,.4g}"
