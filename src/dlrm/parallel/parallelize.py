"""From a model as one process has it to one whose tables are where a plan has them.

    model = config.build(schema, dtype)             tables have no memory yet
    parallelize(model, plan, exchange)              collections are replaced by sharded ones
    materialize(model, device)                      each process draws all rows and keeps its own
    net = ParallelModel(model, exchange, group)     gradients of everything else are summed

The model starts from the same numbers on any number of processes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from torch import nn

from dlrm.nn.embedding import Collection, EmbeddingCollection
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import Exchange
from dlrm.planning.shards import Kind, Plan, Shard

M = TypeVar("M", bound=nn.Module)

Engine = Callable[[EmbeddingCollection, Sequence[Kind], Sequence[Shard], Exchange], Collection]
"""From a collection without memory, the kind of sharding of each of its tables, their shards on all
processes, and the exchange with the others, to a collection that takes its place."""


def parallelize(
    model: M, plan: Plan, exchange: Exchange, engine: Engine = ShardedCollection.of
) -> M:
    """Replace the tables of a model, wherever they are in it, by tables that a plan has sharded.

    Args:
        model: Its tables have no memory yet; changed in place, unless it is tables itself.
        plan: Of its tables, whose names are those of `dlrm.planning.tables`: path and table.
        exchange: With the other processes.
        engine: What shards a collection.

    Returns:
        The model.

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
                for shard in plan.of(number)
            ]
            new = engine(collection, kinds, shards, exchange)
            new.derived = collection.derived
            sharded[id(collection)] = new
        if not path:
            return sharded[id(collection)]  # pyright: ignore[reportReturnType]
        model.set_submodule(path, sharded[id(collection)])
    return model
