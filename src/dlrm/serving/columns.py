"""The raw columns of a model, with values that are usual in them: what a person may try.

The values of a category are those that most training rows have; a value that only few rows have is
never among them.
"""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl

from dlrm.data.features.category import Category
from dlrm.data.features.features import Features
from dlrm.data.features.list import List
from dlrm.data.features.number import Number
from dlrm.data.vocabulary import Vocabulary

MOST = 100
"""Values of a column."""
_LEAST_ROWS = 5
"""Training rows that must have a value."""


def columns(features: Features) -> list[dict[str, Any]]:
    """Return name, kind and usual values of each column that a row has, most frequent first.

    `kind` is number, category or list; `distinct` is how many values have an id, None where values
    are hashed. Of a list the values are those of its items; of a number they ascend.
    """
    described: dict[str, dict[str, Any]] = {}
    for feature in features.features:
        # A cross has no column of its own.
        if len(feature.columns) == 1 and feature.columns[0] not in described:
            described[feature.columns[0]] = _described(feature, features)
    plain = {"kind": "category", "distinct": None, "values": []}
    return [{"name": name, **described.get(name, plain)} for name in features.needed]


def _described(feature: Number | Category | List, features: Features) -> dict[str, Any]:
    if isinstance(feature, Number):
        return {"kind": "number", "distinct": None, "values": _numbers(feature)}
    kind = "list" if isinstance(feature, List) else "category"
    table = feature.table
    if table is None:
        return {"kind": kind, "distinct": None, "values": []}
    values = _frequent(table, hexadecimal=feature.columns[0] in features.numbered_columns)
    return {"kind": kind, "distinct": table.num_ids, "values": values}


def _numbers(feature: Number) -> list[float | str]:
    """Return numbers that lie where training rows have theirs; none of a scale without memory."""
    if feature.scale == "log1p":
        return []
    if feature.ranks or feature.knots:
        known = np.quantile(feature.ranks or feature.knots, [0.1, 0.3, 0.5, 0.7, 0.9])
    else:
        known = feature.raw(np.array([-1, -0.5, 0, 0.5, 1], np.float32))
    distinct = dict.fromkeys(float(f"{x:.4g}") for x in known if np.isfinite(x))
    if not feature.reading.time:
        return list(distinct)
    return [datetime.fromtimestamp(x, UTC).replace(tzinfo=None).isoformat(" ") for x in distinct]


def _frequent(table: Vocabulary, *, hexadecimal: bool) -> list[Any]:
    known = table.known().frame.filter(
        pl.col("value").is_not_null() & (pl.col("count") >= _LEAST_ROWS)
    )
    values = known.top_k(MOST, by="count").sort("count", descending=True)["value"].to_list()
    # Logs of a known format write their numbers so.
    return [f"{value & 0xFFFFFFFF:08x}" for value in values] if hexadecimal else values
