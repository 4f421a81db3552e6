"""A model whose tables are spread over processes, from what builds it on one."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import torch
from torch import nn

from dlrm.nn.embedding import Collection, EmbeddingCollection, Initializer, Storage, made_by
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import Wire
from dlrm.parallel.shards import Kind, Plan, Shard

M = TypeVar("M", bound=nn.Module)


def described(build: Callable[[], M]) -> tuple[M, list[str]]:
    """Return a model without memory for its numbers, and where its collections are in it.

    Returns:
        On the `meta` device; and the path of each collection, e.g. `embeddings.parts.0`, in the
        order in which the model makes them.

    """
    made: list[EmbeddingCollection] = []

    def record(
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
        draw: Initializer | None = None,
    ) -> EmbeddingCollection:
        made.append(EmbeddingCollection(rows, dim, names, storage=storage))
        return made[-1]

    with torch.device("meta"), made_by(record):
        model = build()
    paths = {id(module): path for path, module in model.named_modules()}
    return model, [paths[id(collection)] for collection in made]


class Engine(Protocol):
    """What makes a collection whose tables are where a plan has them: see `ShardedCollection`."""

    def __call__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage,
        draw: Initializer | None,
        kinds: Sequence[Kind],
        shards: Sequence[Shard],
        wire: Wire,
    ) -> Collection:
        """Return fresh tables."""
        ...


def spread(build: Callable[[], M], plan: Plan, wire: Wire, engine: Engine = ShardedCollection) -> M:
    """Return the model with its tables where the plan has them.

    Args:
        build: Returns the model; called twice, once on the `meta` device.
        plan: Of its tables, whose names are those of `dlrm.parallel.tables`: path and feature.
        wire: To the other processes.
        engine: What makes the collections.

    """
    paths = iter(described(build)[1])
    numbers = {table.name: t for t, table in enumerate(plan.tables)}

    def make(
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
        draw: Initializer | None = None,
    ) -> Collection:
        assert names is not None
        path = next(paths)
        of = [numbers[f"{path}/{name}"] for name in names]
        return engine(
            rows,
            dim,
            names,
            storage=storage,
            draw=draw,
            kinds=[plan.kinds[t] for t in of],
            shards=[replace(s, table=f) for f, t in enumerate(of) for s in plan.of(t)],
            wire=wire,
        )

    with made_by(make):
        return build()
