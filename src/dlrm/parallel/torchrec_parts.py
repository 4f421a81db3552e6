"""The parts of tables that a rank has in TorchRec, as numbers that a checkpoint can hold."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from dlrm.parallel.collection import DistributedCollection
from dlrm.parallel.fused import Fused
from dlrm.parallel.unit import Kept
from dlrm.planning.shards import Shard


@dataclass(frozen=True, slots=True)
class Part:
    """What this rank has of a table, with what its optimizer keeps."""

    shard: Shard
    weight: Tensor
    """(rows, columns), the numbers themselves"""
    state: dict[str, Tensor] = field(default_factory=dict)
    """Name in our own optimizers -> (rows, columns), or (rows,) where it is one number a row"""
    replicated: bool = False
    """Whether every rank has the same."""


class FusedCollection(DistributedCollection):
    """Tables whose rows are updated within the backward pass, instead of by an optimizer."""

    optimizer: Fused
    """What updates them"""

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next backward pass."""
        raise NotImplementedError

    def step(self) -> None:
        """Do what the backward pass has left to do."""
        raise NotImplementedError

    def parts(self) -> Iterator[Part]:
        """Yield what this process keeps."""
        raise NotImplementedError

    def load_state(self, number: int, key: str, values: Tensor) -> None:
        """Overwrite the state of that name of the part of that number, from 0 as `parts` yields."""
        raise NotImplementedError

    @property
    def kept(self) -> list[Kept]:
        """What this process keeps; see `DistributedCollection.kept`."""
        return [
            Kept(f"parts.{number}", part.weight, part.shard, 0, part.replicated)
            for number, part in enumerate(self.parts())
        ]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return nothing: no optimizer sees these tables; see `Collection`."""
        return []


def find_parts(
    weights: Mapping[str, Any],
    states: Mapping[str, Any],
    keys: Sequence[str],
    optimizer: Fused,
    rank: int,
) -> Iterator[Part]:
    """Yield the parts of this rank, every number of them 0.

    Args:
        weights: The state of TorchRec's collection, of sharded tensors and, where tables are
            replicated, plain ones.
        states: That of its fused optimizer, of sharded tensors.
        keys: Its names of the tables.
        optimizer: Which one that is; replicated tables get new state of it, as TorchRec updates
            none of them.
        rank: Number of this rank.

    """
    for t, key in enumerate(keys):
        weight = weights[path := f"embedding_bags.{key}.weight"]
        if not hasattr(weight, "local_shards"):
            weight = weight.detach().zero_()
            shape = weight.shape[:1] if optimizer.has_row_sum else weight.shape
            state = {"sum": weight.new_zeros(shape)} if optimizer.has_sum else {}
            yield Part(_shard(t, rank, 0, 0, weight), weight, state, replicated=True)
            continue
        sums = states.get(path, {}).get(f"{key}.momentum1")
        for number, local in enumerate(weight.local_shards()):
            first_row, first_column = local.metadata.shard_offsets
            part = local.tensor.detach().zero_()
            state = {} if sums is None else {"sum": sums.local_shards()[number].tensor}
            yield Part(_shard(t, rank, first_row, first_column, part), part, state)


def narrowed(part: Part, dim: int, shrink: float) -> Part:
    """Return a part without the columns that fill it up beyond D.

    Args:
        part: With them.
        dim: D.
        shrink: What the root of a state that is one number a row is smaller by than without them.

    """
    columns = min(part.weight.shape[1], dim - part.shard.first_column)
    return replace(
        part,
        shard=replace(part.shard, last_column=part.shard.first_column + columns),
        weight=part.weight[:, :columns],
        state={
            key: state[:, :columns] if state.dim() == 2 else _scaled(state, shrink)
            for key, state in part.state.items()
        },
    )


def _scaled(state: Tensor, shrink: float) -> Tensor:
    return state if shrink == 1 else state / shrink**2


def _shard(table: int, rank: int, first_row: int, first_column: int, weight: Tensor) -> Shard:
    rows, columns = weight.shape
    return Shard(table, rank, first_row, first_row + rows, first_column, first_column + columns)
