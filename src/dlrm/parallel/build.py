"""A model whose tables are spread over processes, from what builds it on one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from dlrm.nn.embedding import Collection, Draw, EmbeddingCollection, Storage, made_by
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import Wire
from dlrm.parallel.shards import Plan, Shard

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Spec:
    """A collection of a model."""

    path: str
    """In the model, e.g. `embeddings.parts.0`."""
    rows: tuple[int, ...]
    dim: int
    names: tuple[str, ...]
    storage: Storage


def collections_of(build: Callable[[], nn.Module]) -> list[Spec]:
    """Return the collections of a model in the order in which it makes them, without making it."""
    made: list[EmbeddingCollection] = []

    def record(
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
        draw: Draw | None = None,
    ) -> EmbeddingCollection:
        made.append(EmbeddingCollection(rows, dim, names, storage=storage))
        return made[-1]

    with torch.device("meta"), made_by(record):
        model = build()
    paths = {id(module): path for path, module in model.named_modules()}
    return [Spec(paths[id(c)], c.rows, c.dim, c.names, c.storage) for c in made]


def spread(build: Callable[[], M], plan: Plan, wire: Wire) -> M:
    """Return the model with its tables where the plan has them.

    Args:
        build: Returns the model; called once.
        plan: Of all tables, collection by collection as `collections_of` returns them.
        wire: To the other processes.

    """
    first = 0

    def make(
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
        draw: Draw | None = None,
    ) -> Collection:
        nonlocal first
        numbers = range(first, first + len(rows))
        first += len(rows)
        return ShardedCollection(
            rows,
            dim,
            names,
            storage=storage,
            draw=draw,
            kinds=[plan.kinds[t] for t in numbers],
            shards=[_of_feature(s, numbers.start) for t in numbers for s in plan.of(t)],
            wire=wire,
        )

    with made_by(make):
        return build()


def _of_feature(shard: Shard, first: int) -> Shard:
    return Shard(
        shard.table - first,
        shard.rank,
        shard.first_row,
        shard.last_row,
        shard.first_column,
        shard.last_column,
    )
