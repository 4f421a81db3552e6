"""Samples with lists of ids beside one-hot ones, and a small dataset of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import strategies as st
from numpy.typing import NDArray

from dlrm.data.arrays import SplitWriter
from dlrm.data.encoded import Encoded, Lists
from dlrm.data.split import SPLITS, Rows
from dlrm.data.store import FORMAT, MANIFEST_FILE, VERSION, Dataset
from dlrm.data.vocabulary import Vocabulary
from dlrm.json_file import write_sealed
from dlrm.schema import DenseFeature, Feature, Schema, Table

Samples = list[list[list[int]]]
"""By sample and list feature: its ids."""

SCHEMA = Schema(
    dense=(DenseFeature(name="price"), DenseFeature(name="age")),
    tables=(
        Table(name="user", num_embeddings=30),
        Table(name="tags", num_embeddings=12),
        Table(name="item", num_embeddings=50),
    ),
    features=(
        Feature(name="user", table="user"),
        Feature(name="tags", table="tags", kind="bag"),
        Feature(name="item", table="item"),
        Feature(name="history", table="item", kind="sequence", max_length=9),
    ),
)


def samples() -> st.SearchStrategy[tuple[int, Samples]]:
    """Return F and up to twelve samples with F lists each, many of them empty."""
    ids = st.lists(st.integers(0, 99), max_size=4)

    def with_features(features: int) -> st.SearchStrategy[tuple[int, Samples]]:
        row = st.lists(ids, min_size=features, max_size=features)
        return st.tuples(st.just(features), st.lists(row, max_size=12))

    return st.integers(1, 4).flatmap(with_features)


def some_of(count: int) -> st.SearchStrategy[list[int]]:
    """Return the numbers of some of `count` samples, in any order, and some of them again."""
    return st.lists(st.integers(0, count - 1), max_size=20) if count else st.just([])


def packed(rows: Samples) -> Lists:
    """Return samples as two arrays, id by id."""
    ids, offsets = [], [0]
    for row in rows:
        for listed in row:
            ids += listed
            offsets.append(len(ids))
    return Lists(np.array(ids, np.int32), np.array(offsets, np.int64))


def unpacked(lists: Lists, features: int) -> Samples:
    """Return samples from two arrays, list by list."""
    ends = lists.offsets.tolist()
    assert ends[0] == 0
    assert ends[-1] == len(lists.ids)
    parts = [lists.ids[a:b].tolist() for a, b in pairwise(ends)]
    return [parts[i : i + features] for i in range(0, len(parts), features)]


def log(count: int, schema: Schema = SCHEMA, seed: int = 0) -> Encoded:
    """Return `count` samples of a schema as a block; a tenth of the lists is empty.

    The first label follows the first id of each sample, so that there is something to learn; real
    ones are that plus the number of the label.
    """
    rng = np.random.default_rng(seed)
    sizes = dict(zip(schema.feature_names, schema.num_embeddings, strict=True))
    ids = np.empty((count, len(schema.one_hot_features)), np.int32)
    for position, feature in enumerate(schema.one_hot_features):
        ids[:, position] = rng.integers(0, sizes[feature.name], count)
    lengths = [0, 1, 1, 2, 2, 2, 3, 3, 5, 9]
    rows = [
        [
            rng.integers(0, sizes[feature.name], rng.choice(lengths)).tolist()
            for feature in schema.list_features
        ]
        for _ in range(count)
    ]
    first = ids[:, 0] if ids.shape[1] else np.zeros(count)
    chance = np.where(first % 2 == 0, 0.8, 0.2)
    labels = rng.random((count, schema.num_labels)) < chance[:, None]
    if schema.task == "regression":
        labels = (labels + np.arange(schema.num_labels) + 0.25).astype(np.float32)
    return Encoded(
        rng.random((count, len(schema.dense)), np.float32),
        ids,
        labels if schema.task == "regression" else labels.astype(np.uint8),
        packed(rows) if schema.list_features else None,
    )


def write(
    folder: Path,
    pieces: Sequence[tuple[str, Encoded, Rows]],
    schema: Schema = SCHEMA,
    *,
    weights: bool = False,
    truth: bool = False,
) -> Dataset:
    """Write a dataset: rows of blocks, by split."""
    folder.mkdir()
    with SplitWriter(folder, SPLITS, schema, weights=weights, truth=truth) as writer:
        for split, block, rows in pieces:
            writer.write(split, block, rows)
        splits = writer.finish()
    nothing: dict[str, Any] = {"missing": 0, "missing_rate": 0.0}
    features = [
        {"name": feature.name, "kind": "dense", "num_embeddings": None, "rare": None, **nothing}
        for feature in schema.dense
    ] + [
        {"name": feature.name, "kind": feature.kind, "num_embeddings": rows, "rare": 0, **nothing}
        for feature, rows in zip(schema.features, schema.num_embeddings, strict=True)
    ]
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "source": "made up",
        "rows": sum(split["rows"] for split in splits.values()),
        "unused_rows": 0,
        "bad_rows": {"total": 0},
        "schema": schema.to_dict(),
        "splits": splits,
        "features": features,
        "files": {},
    }
    write_sealed(folder / MANIFEST_FILE, manifest)
    return Dataset.open(folder)


@dataclass(frozen=True)
class Named:
    """Fitted features in which value 7 of `item` is "item 7"."""

    schema: Schema

    def vocabulary(self, name: str) -> Vocabulary:
        """Return the values of a feature."""
        rows = dict(zip(self.schema.feature_names, self.schema.num_embeddings, strict=True))[name]
        values = [f"{name} {number}" for number in range(rows - 1)]
        return Vocabulary(name, pl.DataFrame({"value": values, "count": [1] * len(values)}))

    def raw(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return numbers as they are."""
        del name
        return values.astype(np.float64)
