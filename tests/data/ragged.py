"""Samples with bags of ids as lists of lists, and a small dataset of them."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import strategies as st

from dlrm.data.arrays import SplitWriter
from dlrm.data.bags import Bags
from dlrm.data.encoder import ENCODER_FILE, VOCABULARY_FOLDER, Encoder
from dlrm.data.split import SPLITS, Rows
from dlrm.data.store import FORMAT, MANIFEST_FILE, Dataset, version_of
from dlrm.data.vocabulary import Vocabulary
from dlrm.files import write_json
from dlrm.schema import CategoricalFeature, DenseFeature, Schema

Samples = list[list[list[int]]]
"""By sample and table: a bag."""

SCHEMA = Schema(
    dense=(DenseFeature(name="price"), DenseFeature(name="age")),
    categorical=(
        CategoricalFeature(name="user", rows=30),
        CategoricalFeature(name="tags", rows=12, multi_hot=True),
        CategoricalFeature(name="item", rows=50),
    ),
)


def samples() -> st.SearchStrategy[tuple[int, Samples]]:
    """Return T and up to twelve samples with T bags each, many of them empty."""
    bag = st.lists(st.integers(0, 99), max_size=4)

    def of(tables: int) -> st.SearchStrategy[tuple[int, Samples]]:
        row = st.lists(bag, min_size=tables, max_size=tables)
        return st.tuples(st.just(tables), st.lists(row, max_size=12))

    return st.integers(1, 4).flatmap(of)


def some_of(count: int) -> st.SearchStrategy[list[int]]:
    """Return the numbers of some of `count` samples, in any order, and some of them again."""
    return st.lists(st.integers(0, count - 1), max_size=20) if count else st.just([])


def packed(rows: Samples) -> Bags:
    """Return samples as two arrays, id by id."""
    ids, offsets = [], [0]
    for row in rows:
        for bag in row:
            ids += bag
            offsets.append(len(ids))
    return Bags(np.array(ids, np.int32), np.array(offsets, np.int64))


def unpacked(bags: Bags, tables: int) -> Samples:
    """Return samples from two arrays, bag by bag."""
    ends = bags.offsets.tolist()
    assert ends[0] == 0
    assert ends[-1] == len(bags.ids)
    each = [bags.ids[a:b].tolist() for a, b in pairwise(ends)]
    return [each[i : i + tables] for i in range(0, len(each), tables)]


def log(count: int, schema: Schema = SCHEMA, seed: int = 0) -> dict[str, np.ndarray]:
    """Return `count` samples of a schema as the arrays of a block; a tenth of the bags is empty.

    Labels follow the first id of each sample, so that there is something to learn.
    """
    rng = np.random.default_rng(seed)
    lengths = [0, 1, 1, 2, 2, 2, 3, 3, 5, 9]
    rows = [
        [
            rng.integers(0, table.rows, rng.choice(lengths) if table.multi_hot else 1).tolist()
            for table in schema.categorical
        ]
        for _ in range(count)
    ]
    bags = packed(rows)
    first = np.array([row[0][0] for row in rows], np.int64)
    chance = np.where(first % 2 == 0, 0.8, 0.2)
    return {
        "dense": rng.random((count, len(schema.dense)), np.float32),
        "ids": bags.ids,
        "offsets": bags.offsets,
        "labels": (rng.random(count) < chance).astype(np.uint8),
    }


def write(
    folder: Path, pieces: Sequence[tuple[str, dict[str, np.ndarray], Rows]], schema: Schema = SCHEMA
) -> Dataset:
    """Write a dataset with bags: rows of blocks, by split."""
    folder.mkdir()
    shape = len(schema.dense), len(schema.categorical)
    with SplitWriter(folder, SPLITS, *shape, truth=False, bags=True) as writer:
        for split, arrays, rows in pieces:
            writer.write(split, arrays, rows)
        splits = writer.finish()
    counts = {name: each["rows"] for name, each in splits.items()}
    nothing: dict[str, Any] = {"missing": 0, "missing_rate": 0.0}
    features = [
        {"name": each.name, "kind": "dense", "rows": None, "rare": None, **nothing}
        for each in schema.dense
    ] + [
        {
            "name": each.name,
            "kind": "list" if each.multi_hot else "categorical",
            "rows": each.rows,
            "rare": 0,
            **nothing,
        }
        for each in schema.categorical
    ]
    manifest = {
        "format": FORMAT,
        "version": version_of(schema),
        "source": "made up",
        "rows": sum(counts.values()),
        "unused_rows": 0,
        "bad_rows": {"total": 0},
        "schema": schema.to_dict(),
        "splits": splits,
        "features": features,
        "files": {},
    }
    write_json(folder / MANIFEST_FILE, manifest)
    return Dataset.open(folder)


def encoder(dataset: Dataset) -> Encoder:
    """Put an encoder into a dataset that `write` made; value 7 of `item` is "item 7"."""
    schema = dataset.schema
    made = Encoder(
        source="made up",
        dense=tuple(each.name for each in schema.dense),
        categorical=schema.names,
        label=schema.label,
        rows=schema.rows,
        max_rows_per_table=None,
        folder=dataset.path,
    )
    (dataset.path / VOCABULARY_FOLDER).mkdir()
    for name, rows in zip(schema.names, schema.rows, strict=True):
        values = [f"{name} {number}" for number in range(rows - 1)]
        frame = pl.DataFrame({"value": values, "count": [1] * len(values)})
        Vocabulary(name, frame).save(dataset.path / VOCABULARY_FOLDER)
    write_json(dataset.path / ENCODER_FILE, made.to_dict())
    return made
