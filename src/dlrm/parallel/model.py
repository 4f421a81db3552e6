"""A model on several processes: tables sharded, everything else copied, gradients summed.

    model = config.build(schema, dtype)             tables have no memory yet
    parallelize(model, plan, exchange)              collections are replaced by sharded ones
    materialize(model, device)                      each process draws all rows and keeps its own
    net = ParallelModel(model, exchange, group)     gradients of everything else are summed

The model starts from the same numbers on any number of processes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.nn.embedding import Collection, EmbeddingCollection, embeddings_of, parameter_groups
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import Exchange
from dlrm.parallel.gradients import GradientSums
from dlrm.parallel.norm import over_whole_batches
from dlrm.planning.shards import Kind, Plan, Shard

M = TypeVar("M", bound=nn.Module)

Engine = Callable[[EmbeddingCollection, Sequence[Kind], Sequence[Shard], Exchange], Collection]
"""Returns what takes the place of a collection without memory, given the kind of sharding of each
table, their shards on all processes, and the exchange with the others."""


def parallelize(
    model: M, plan: Plan, exchange: Exchange, engine: Engine = ShardedCollection.of
) -> M:
    """Return a model with its tables, wherever they are in it, sharded as a plan says.

    The tables have no memory yet; the model is changed in place, unless it is tables itself. Names
    of tables in the plan are those of `dlrm.planning.tables`: path and table.
    """
    position = {table.name: t for t, table in enumerate(plan.tables)}
    sharded: dict[int, Collection] = {}
    # A collection that stands in several places is one, and stays one.
    for path, collection in list(model.named_modules(remove_duplicate=False)):
        if not isinstance(collection, EmbeddingCollection):
            continue
        if id(collection) not in sharded:
            numbers = [position[f"{path}/{table.name}"] for table in collection.layout.tables]
            kinds: list[Kind] = [plan.kinds[number] for number in numbers]
            shards = [
                replace(shard, table=t)
                for t, number in enumerate(numbers)
                for shard in plan.of_table(number)
            ]
            new = engine(collection, kinds, shards, exchange)
            new.derived = collection.derived
            sharded[id(collection)] = new
        if not path:
            return sharded[id(collection)]  # pyright: ignore[reportReturnType]
        model.set_submodule(path, sharded[id(collection)])
    return model


class ParallelModel(nn.Module):
    """`forward(batch) -> logits (b, K)` of the samples of this process.

    Ids are sent before the model begins, so that the bottom MLP is computed while vectors are on
    their way.

    The model was made by `parallelize`, its tables have memory, and are exchanged by `exchange`;
    all else is equal on all processes, and its gradients are summed over the `group`.
    """

    def __init__(self, model: nn.Module, exchange: Exchange, group: Any = None):
        super().__init__()
        self.exchange = exchange
        over_whole_batches(model, exchange)
        self.model = model
        self._ahead = [part for part in embeddings_of(model) if not part.derived]
        dense = [
            parameter
            for parameters in parameter_groups(model)
            if not parameters["sparse"]
            for parameter in parameters["params"]
        ]
        self._sums = GradientSums(dense, group)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (b, K)."""
        self.exchange.samples = batch.parts or self._gather_counts(len(batch))
        for embeddings in self._ahead:
            embeddings.prefetch(batch)
        logits = self.model(batch)
        if torch.is_grad_enabled() and logits.requires_grad:
            return self._sums.of(logits)
        return logits

    def _gather_counts(self, local_size: int) -> tuple[int, ...]:
        counts = torch.zeros(self.exchange.size, dtype=torch.int64)
        counts[self.exchange.rank] = local_size
        dist.all_reduce(counts, group=self.exchange.group)
        return tuple(counts.tolist())
