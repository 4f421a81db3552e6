"""The parts of tables that a rank has in TorchRec, as numbers that a checkpoint can hold."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from dlrm.nn.embedding import Collection
from dlrm.parallel.fused import Fused

Values = Callable[[int, int, int, int, int], Tensor]
"""(table, first row, last row, first column, last column) -> float32 (rows, columns); of state that
is one number a row, (rows,)."""


@dataclass(frozen=True, slots=True)
class Part:
    """What this rank has of a table, with what its optimizer keeps."""

    table: int
    first_row: int
    first_column: int
    weight: Tensor
    """(rows, columns), the numbers themselves"""
    state: dict[str, Tensor] = field(default_factory=dict)
    """Name in our own optimizers -> (rows, columns), or (rows,) where it is one number a row"""
    replicated: bool = False
    """Whether every rank has the same."""

    @property
    def range(self) -> tuple[int, int, int, int, int]:
        """Table, first row, last row, first column, last column."""
        rows, columns = self.weight.shape
        last_row, last_column = self.first_row + rows, self.first_column + columns
        return self.table, self.first_row, last_row, self.first_column, last_column


class FusedCollection(Collection):
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

    def load(self, weights: Values, sums: Values | None = None) -> None:
        """Overwrite what this process keeps.

        Args:
            weights: Of the tables.
            sums: State of Adagrad; None leaves it as it is.

        """
        raise NotImplementedError


def find(
    weights: Mapping[str, Any], states: Mapping[str, Any], keys: Sequence[str], optimizer: Fused
) -> Iterator[Part]:
    """Yield the parts of this rank, every number of them 0.

    Args:
        weights: The state of TorchRec's collection, of sharded tensors and, where tables are
            replicated, plain ones.
        states: That of its fused optimizer, of sharded tensors.
        keys: Its names of the tables.
        optimizer: Which one that is; replicated tables get new state of it, as TorchRec updates
            none of them.

    """
    for t, key in enumerate(keys):
        weight = weights[path := f"embedding_bags.{key}.weight"]
        if not hasattr(weight, "local_shards"):
            weight = weight.detach().zero_()
            shape = weight.shape[:1] if optimizer.name == "rowwise_adagrad" else weight.shape
            state = {} if optimizer.name == "sgd" else {"sum": weight.new_zeros(shape)}
            yield Part(t, 0, 0, weight, state, replicated=True)
            continue
        sums = states.get(path, {}).get(f"{key}.momentum1")
        for place, shard in enumerate(weight.local_shards()):
            first_row, first_column = shard.metadata.shard_offsets
            state = {} if sums is None else {"sum": sums.local_shards()[place].tensor}
            yield Part(t, first_row, first_column, shard.tensor.detach().zero_(), state)


def narrowed(part: Part, dim: int, shrink: float) -> Part:
    """Return a part without the columns that fill it up beyond D.

    Args:
        part: With them.
        dim: D.
        shrink: What the root of a state that is one number a row is smaller by than without them.

    """
    columns = min(part.weight.shape[1], dim - part.first_column)
    return replace(
        part,
        weight=part.weight[:, :columns],
        state={
            name: _narrow(each, columns) if each.dim() == 2 else _measured(each, shrink)
            for name, each in part.state.items()
        },
    )


def _narrow(state: Tensor, columns: int) -> Tensor:
    return state[:, :columns]


def _measured(state: Tensor, shrink: float) -> Tensor:
    return state if shrink == 1 else state / shrink**2
