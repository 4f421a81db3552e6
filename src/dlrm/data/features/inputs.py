"""The inputs that features make, as arrays of n rows and as the schema of a model."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dlrm.data.encoded import Encoded, Lists
from dlrm.schema import DenseFeature, Feature, Kind, Schema, Table, Task

_CACHED_ROWS, _FEW_ROWS = 4096, 64

IdLists = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Ids of the lists of n rows one after another, and the length of each list (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input of the model: a dense feature, or a categorical one."""

    name: str
    num_embeddings: int | None = None
    """Rows of the table of a category; None for a number."""
    transform: str = "none"
    """How a number became this one."""
    bins: int = 0
    """Components that a model makes of a piecewise number; 0 for others."""
    kind: Kind = "one_hot"
    """How many ids a sample has of a category."""
    max_length: int = 0
    """Ids that are kept of a longer sequence; 0 for all."""
    table: str = ""
    """Name of the table that a category shares; empty for a table of its own."""
    value_names: tuple[str, ...] = ()
    """What each id of a category that is made of a number is called, the last one missing."""


@dataclass(slots=True)
class Parts:
    """The inputs of n rows, in the order of the feature's `inputs()`."""

    dense: list[NDArray[np.float32]] = field(default_factory=list)
    """(n,) of each number."""
    ids: list[NDArray[np.int32] | IdLists] = field(default_factory=list)
    """(n,) of each category with one id a row, or lists."""


def assemble(parts: Sequence[Parts], rows: int) -> Encoded:
    """Return the inputs of all features as arrays, without labels."""
    dense = [column for part in parts for column in part.dense]
    inputs = [column for part in parts for column in part.ids]
    single = [column for column in inputs if not isinstance(column, tuple)]
    lists = [column for column in inputs if isinstance(column, tuple)]
    return Encoded(
        side_by_side(dense, rows, np.float32),
        side_by_side(single, rows, np.int32),
        lists=interleave(lists, rows) if lists else None,
    )


def side_by_side(columns: Sequence[NDArray[Any]], rows: int, dtype: DTypeLike) -> NDArray[Any]:
    """Return columns (n,) as one array, row by row."""
    if columns and rows <= _FEW_ROWS:
        # One call for all columns, of which each has little to say.
        together = np.concatenate(columns, dtype=dtype, casting="same_kind")
        return np.ascontiguousarray(together.reshape(len(columns), rows).T)
    together = np.empty((rows, len(columns)), dtype)
    # Some rows at a time stay in the cache.
    for start in range(0, rows, _CACHED_ROWS):
        some = slice(start, start + _CACHED_ROWS)
        for position, column in enumerate(columns):
            together[some, position] = column[some]
    return together


def interleave(lists: Sequence[IdLists], rows: int) -> Lists:
    """Return the lists of F features, sample by sample and feature by feature."""
    lengths = np.empty((rows, len(lists)), np.int64)
    for feature, (_, sizes) in enumerate(lists):
        lengths[:, feature] = sizes
    offsets = np.concatenate([[0], np.cumsum(lengths.ravel())]).astype(np.int64)
    ids = np.empty(offsets[-1], np.int32)
    begins = offsets[:-1].reshape(rows, len(lists))
    for feature, (values, sizes) in enumerate(lists):
        within = np.arange(len(values)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        ids[np.repeat(begins[:, feature], sizes) + within] = values
    return Lists(ids, offsets)


def named_apart(inputs: Sequence[Input]) -> list[Input]:
    """Return inputs of which no two numbers and no two categories have one name."""
    taken: set[tuple[bool, str]] = set()
    named = []
    for model_input in inputs:
        # "age missing" may be a column of the table, and the flag of another one.
        is_number = model_input.num_embeddings is None
        name = _free(model_input.name, {other for kind, other in taken if kind == is_number})
        taken.add((is_number, name))
        named.append(replace(model_input, name=name))
    return named


def schema_of(inputs: Sequence[Input], labels: tuple[str, ...], task: Task) -> Schema:
    """Return the schema of a model that takes these inputs, whose names differ."""
    tables: dict[str, Table] = {}
    shared: dict[str, str] = {}
    features = []
    for model_input in inputs:
        if model_input.num_embeddings is None:
            continue
        table = shared.get(model_input.table)
        if table is None:
            table = _free(model_input.table or model_input.name, tables)
            tables[table] = Table(name=table, num_embeddings=model_input.num_embeddings)
            if model_input.table:
                shared[model_input.table] = table
        features.append(
            Feature(
                name=model_input.name,
                table=table,
                kind=model_input.kind,
                max_length=model_input.max_length,
            )
        )
    return Schema(
        dense=tuple(
            DenseFeature(
                name=model_input.name, transform=model_input.transform, bins=model_input.bins
            )
            for model_input in inputs
            if model_input.num_embeddings is None
        ),
        tables=tuple(tables.values()),
        features=tuple(features),
        labels=labels,
        task=task,
    )


def _free(name: str, taken: Container[str]) -> str:
    """Return a name that is not taken: this one, or with a number behind it."""
    free, number = name, 2
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free
