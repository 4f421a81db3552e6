"""Where the tensors of a process lie in the whole model, for checkpoints.

Names and shapes in a checkpoint are those of the model on one process: of tables that are sharded,
each process writes and reads the rows and columns that it keeps. So a checkpoint of many processes
is that of one, and any number of them goes on from it.

An optimizer's state is written as `<parameter>.<key>`, of any optimizer. What it keeps of a table
has one entry a row, or one a number: which of the two, fresh state says that it makes of tables of
different widths. What belongs to a parameter group as a whole stands with its first parameter.

`stored` is always a file that `safetensors.safe_open` has opened.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrm.optim import SparseOptimizer
from dlrm.parallel.collection import DistributedCollection
from dlrm.parallel.torchrec.fused import FusedCollection
from dlrm.planning.shards import Shard
from dlrm.tensor_file import Part, Whole


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a tensor of this process, and where they lie in the whole."""

    first: int
    """The first of the rows here."""
    rows: int
    """The number of those rows."""
    row: int
    """The first of them in the whole."""
    column: int
    """The first of their columns in the whole."""
    written: bool
    """Whether this process writes them: of copies only the first does."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a parameter of this process lies in one of the whole model."""

    name: str
    """Name of the whole one."""
    rows: int | None = None
    """Rows of the whole one; None where this process has all of it."""
    columns: int = 0
    """Columns of the whole one."""
    width: int = 0
    """Columns of what this process has."""
    pieces: tuple[Piece, ...] = ()

    def read(self, stored: Any, name: str, by_column: bool | None = None) -> Tensor:
        """Read what this process keeps of a tensor; `by_column` as for `Held`."""
        slices = stored.get_slice(name)
        shape = slices.get_shape()
        if self.rows is None:
            return slices[:] if shape else stored.get_tensor(name)
        by_column = len(shape) > 1 if by_column is None else by_column
        parts = []
        for piece in self.pieces:
            rows = slice(piece.row, piece.row + piece.rows)
            columns = slice(piece.column, piece.column + self.width)
            if not by_column:
                parts.append(slices[rows])
            else:
                parts.append(slices[rows, columns] if len(shape) == 2 else slices[rows, :, columns])
        if parts:
            return torch.cat(parts)
        none = (0, *shape[1:-1], self.width) if by_column else (0, *shape[1:])
        return slices[:0].new_empty(none)


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor of this process: a parameter, or what an optimizer keeps of one."""

    name: str
    """In a checkpoint."""
    tensor: Tensor
    place: Place
    by_column: bool | None = None
    """Whether its last dimension is the columns of the parameter; None for yes, unless it has a
    single dimension."""
    put: Callable[[Tensor], object] | None = None
    """Takes other values; None where they are copied into the tensor."""

    def read(self, stored: Any) -> None:
        """Take the values that a file has."""
        (self.put or self.tensor.copy_)(self.place.read(stored, self.name, self.by_column))

    def written(self) -> tuple[tuple[int, ...], list[Part]]:
        """Return the shape of the whole, of tables that are sharded, and the parts written here."""
        by_column = self.tensor.dim() > 1 if self.by_column is None else self.by_column
        shape = self.tensor.shape[1:]
        if by_column:
            shape = (*shape[:-1], self.place.columns)
        parts = [
            Part(self.tensor[p.first : p.first + p.rows], p.row, p.column if by_column else 0)
            for p in self.place.pieces
            # What stands for a row as a whole is written with its first column.
            if p.written and (by_column or p.column == 0)
        ]
        return (self.place.rows or 0, *shape), parts


def model_tensors(model: nn.Module) -> dict[str, Held]:
    """Return the parameters and buffers of a model, by their names on this process."""
    where = {name: Place(name) for name in model.state_dict()}
    fused: dict[str, Held] = {}
    for prefix, tables in _distributed(model):
        pieces: dict[str, list[Piece]] = {name: [] for name, _ in tables.named_parameters()}
        for local in tables.local_shards:
            if local.name in pieces:
                pieces[local.name].append(_piece(tables, local.shard, local.place, local.copied))
        rows = sum(tables.layout.sizes)
        for name, parameter in tables.named_parameters():
            width, mine = parameter.shape[1], tuple(pieces[name])
            where[prefix + name] = Place(f"{prefix}weight", rows, tables.dim, width, mine)
        if isinstance(tables, FusedCollection):
            for number, part in enumerate(tables.local_shards):
                place = _fused_place(prefix, tables, part.shard, part.copied)
                fused[f"{prefix}{number}"] = Held(place.name, part.weight, place)
    tensors = {
        name: Held(where[name].name, tensor.detach(), where[name])
        for name, tensor in model.state_dict().items()
    }
    return tensors | fused


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> list[Held]:
    """Return the state of an optimizer of a model."""
    sparse = isinstance(optimizer, SparseOptimizer)
    of_group = set(optimizer.group_state()) if sparse else set()
    by_column = _by_column(optimizer)
    where, held = model_tensors(model), []
    for name, parameter in model.named_parameters():
        for key, tensor in optimizer.state[parameter].items():
            place, whole = where[name].place, f"{where[name].name}.{key}"
            place = Place(whole) if key in of_group else place
            held.append(Held(whole, tensor, place, by_column.get(key)))
    for prefix, tables in _distributed(model):
        for number, part in enumerate(
            tables.local_shards if isinstance(tables, FusedCollection) else ()
        ):
            assert isinstance(tables, FusedCollection)
            place = _fused_place(prefix, tables, part.shard, part.copied)
            for key, tensor in part.state.items():
                put = partial(tables.load_state, number, key)
                held.append(Held(f"{place.name}.{key}", tensor, place, put=put))
    return held


def wholes(held: Iterable[Held], first: bool = True) -> dict[str, Whole]:
    """Return tensors by their names in the whole model, each with the parts that are written here.

    Args:
        held: All of them.
        first: Whether this is the process that writes what all of them have.

    """
    gathered: dict[str, Whole] = {}
    for tensor in held:
        if tensor.place.rows is None:
            gathered[tensor.name] = Whole.of(tensor.tensor, first)
            continue
        shape, parts = tensor.written()
        before = gathered[tensor.name].parts if tensor.name in gathered else ()
        gathered[tensor.name] = Whole(tensor.tensor.dtype, shape, (*before, *parts))
    return gathered


def model_wholes(model: nn.Module, first: bool = True) -> dict[str, Whole]:
    """Return the parameters and buffers of a model; `first` as for `wholes`."""
    return wholes(model_tensors(model).values(), first)


def optimizer_wholes(
    model: nn.Module, optimizer: Optimizer, first: bool = True
) -> dict[str, Whole]:
    """Return the state of an optimizer of a model; `first` as for `wholes`."""
    return wholes(optimizer_tensors(model, optimizer), first)


def model_mismatch(model: nn.Module, stored: Any) -> str | None:
    """Say how the names and shapes in a file differ from those of a model; None if not."""
    return _mismatch(model_wholes(model), stored)


def optimizer_mismatch(model: nn.Module, optimizer: Optimizer, stored: Any) -> str | None:
    """Say how the state in a file differs from that of an optimizer; None if not.

    Of parameters whose first gradients say what state they get anything is expected.
    """
    late = {
        id(parameter)
        for group in optimizer.param_groups
        if group.get("sparse") is None
        for parameter in group["params"]
    }
    where = model_tensors(model)
    skipped = [f"{where[n].name}." for n, p in model.named_parameters() if id(p) in late]
    return _mismatch(optimizer_wholes(model, optimizer), stored, *skipped)


def _mismatch(expected: Mapping[str, Whole], stored: Any, *skipped: str) -> str | None:
    shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    for name in sorted(shapes.keys() | expected.keys()):
        stored_shape = shapes.get(name, "nothing")
        shape = expected[name].shape if name in expected else "nothing"
        if stored_shape != shape and not name.startswith(skipped):
            return f"it has {stored_shape} for {name}, expected {shape}"
    return None


@torch.no_grad()
def load_model(model: nn.Module, stored: Any) -> None:
    """Read what this process keeps of a model that fits the file, see `model_mismatch`."""
    for held in model_tensors(model).values():
        held.read(stored)


@torch.no_grad()
def load_optimizer(model: nn.Module, optimizer: Optimizer, stored: Any) -> None:
    """Read what this process keeps of the state of an optimizer; see `optimizer_mismatch`.

    State that an optimizer makes when it first sees a gradient is taken as it is in the file.
    """
    there = optimizer_tensors(model, optimizer)
    for held in there:
        held.read(stored)
    names, where = {held.name for held in there}, model_tensors(model)
    for name, parameter in model.named_parameters():
        prefix = f"{where[name].name}."
        for whole in stored.keys():  # noqa: SIM118
            if whole.startswith(prefix) and whole not in names:
                value = where[name].place.read(stored, whole)
                optimizer.state[parameter][whole.removeprefix(prefix)] = value


def _distributed(model: nn.Module) -> list[tuple[str, DistributedCollection]]:
    """Return all sharded tables, with what their names in the model begin with."""
    return [
        (f"{path}." if path else "", module)
        for path, module in model.named_modules()
        if isinstance(module, DistributedCollection)
    ]


def _piece(tables: DistributedCollection, shard: Shard, place: int, copied: bool) -> Piece:
    row = sum(tables.layout.sizes[: shard.table]) + shard.first_row
    written = not copied or tables.exchange.rank == 0
    return Piece(place, shard.rows, row, shard.first_column, written)


def _fused_place(prefix: str, tables: FusedCollection, shard: Shard, copied: bool) -> Place:
    """Return where a part of tables lies that are no parameters."""
    rows, piece = sum(tables.layout.sizes), _piece(tables, shard, 0, copied)
    return Place(f"{prefix}weight", rows, tables.dim, shard.columns, (piece,))


def _by_column(optimizer: Optimizer) -> dict[str, bool]:
    """Return of each key of a table's state whether its last dimension is the table's columns."""
    if not isinstance(optimizer, SparseOptimizer):
        return {}
    narrow, wide = (optimizer.table_state(torch.empty(1, width)) for width in (2, 3))
    return {key: tensor.shape != wide[key].shape for key, tensor in narrow.items()}
