"""Random batches of any schema, and the ids in them, sample by sample."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import torch
from hypothesis import strategies as st

from dlrm.batch import Batch, Jagged
from dlrm.schema import DenseFeature, Feature, Kind, Schema, Table

KINDS: tuple[Kind, ...] = get_args(Kind)


def history_schema(
    num_dense: int = 3, labels: tuple[str, ...] = ("label",), *, rows: Sequence[int] = (300, 120, 7)
) -> Schema:
    """One-hot ids, a bag and a sequence that shares the table of one of the ids, in mixed order."""
    users, items, words = rows
    return Schema(
        dense=tuple(DenseFeature(name=f"I{i + 1}") for i in range(num_dense)),
        tables=(
            Table(name="users", num_embeddings=users),
            Table(name="items", num_embeddings=items),
            Table(name="words", num_embeddings=words),
        ),
        features=(
            Feature(name="history", table="items", kind="sequence"),
            Feature(name="user", table="users"),
            Feature(name="words", table="words", kind="bag"),
            Feature(name="item", table="items"),
            Feature(name="word", table="words"),
        ),
        labels=labels,
    )


def with_kind(schema: Schema, kind: Kind) -> Schema:
    """Return a schema in which all features are of one kind."""
    return replace(schema, features=tuple(replace(f, kind=kind) for f in schema.features))


@st.composite
def schemas(draw: st.DrawFn, rows: st.SearchStrategy[list[int]], num_dense: int = 0) -> Schema:
    """Features of all kinds in any order; each table has one at least, and some have several."""
    sizes = draw(rows)
    tables = [Table(name=f"T{t}", num_embeddings=n) for t, n in enumerate(sizes)]
    more = draw(st.lists(st.sampled_from(range(len(sizes))), max_size=3)) if sizes else []
    uses = draw(st.permutations([*range(len(sizes)), *more]))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=len(uses), max_size=len(uses)))
    return Schema(
        dense=tuple(DenseFeature(name=f"I{i + 1}") for i in range(num_dense)),
        tables=tuple(tables),
        features=tuple(
            Feature(name=f"C{i}", table=f"T{t}", kind=kind)
            for i, (t, kind) in enumerate(zip(uses, kinds, strict=True))
        ),
    )


def draw(
    schema: Schema,
    samples: int,
    *,
    longest: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Random samples of a schema, whose lists have up to so many ids; labels are 0 or 1."""
    rng = np.random.default_rng(seed)
    rows = dict(zip(schema.feature_names, schema.num_embeddings, strict=True))
    ids = [rng.integers(0, rows[f.name], samples) for f in schema.one_hot_features]
    lists = None
    if schema.list_features:
        entries = [
            rng.integers(0, rows[f.name], rng.integers(0, longest + 1))
            for _ in range(samples)
            for f in schema.list_features
        ]
        lists = Jagged(
            torch.from_numpy(np.concatenate([np.empty(0, dtype=np.int64), *entries])),
            torch.from_numpy(np.cumsum([0, *map(len, entries)])),
        )
    return Batch(
        torch.from_numpy(rng.normal(size=(samples, len(schema.dense)))).to(dtype),
        torch.from_numpy(np.stack(ids, axis=1)) if ids else torch.empty(samples, 0).long(),
        torch.from_numpy(rng.integers(0, 2, (samples, schema.num_labels))).to(dtype),
        lists,
    )


def ids_of(schema: Schema, batch: Batch, sample: int, name: str) -> list[int]:
    """Return the ids of a sample in a feature."""
    feature = schema.feature(name)
    if not feature.is_list:
        return [int(batch.ids[sample, schema.one_hot_features.index(feature)])]
    assert batch.lists is not None
    values, offsets = batch.lists
    g = sample * len(schema.list_features) + schema.list_features.index(feature)
    return values[offsets[g] : offsets[g + 1]].tolist()


def lists_of_one(batch: Batch) -> Batch:
    """Return a batch of ids alone as one of lists, each of one id."""
    return replace(
        batch,
        ids=batch.ids[:, :0],
        lists=Jagged(batch.ids.flatten(), torch.arange(batch.ids.numel() + 1)),
    )
