"""Where the tensors of a process lie in the whole model, for checkpoints.

Names and shapes in a checkpoint are those of the model on one process: of tables that are sharded,
each process writes and reads the rows and columns that it keeps. So a checkpoint of many processes
is that of one, and any number of them goes on from it.

An optimizer's state is written as `<parameter>.<key>`, of any optimizer. What it keeps of a table
has one entry a row, or one a number: which of the two, fresh state says that it makes of tables of
different widths. What belongs to a parameter group as a whole stands with its first parameter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
    """Where a tensor of this process lies in one of the whole model."""

    name: str
    """Name of the whole one."""
    rows: int | None = None
    """Rows of the whole one; None where this process has all of it."""
    columns: int = 0
    """Columns of the whole one."""
    width: int = 0
    """Columns of what this process has."""
    pieces: tuple[Piece, ...] = ()


def places(model: nn.Module) -> dict[str, Place]:
    """Return where each tensor of `model.state_dict()` lies in the whole model, in its order."""
    where = {name: Place(name) for name in model.state_dict()}
    for prefix, tables in _distributed(model):
        pieces: dict[str, list[Piece]] = {name: [] for name, _ in tables.named_parameters()}
        for kept in tables.kept:
            if kept.name in pieces:
                written = not kept.copied or tables.exchange.rank == 0
                pieces[kept.name].append(_piece(tables, kept.shard, kept.place, written))
        for name, parameter in tables.named_parameters():
            where[prefix + name] = Place(
                f"{prefix}weight",
                sum(tables.layout.sizes),
                tables.dim,
                parameter.shape[1],
                tuple(pieces[name]),
            )
    return where


def wholes(
    where: Mapping[str, Place], tensors: Mapping[str, Tensor], first: bool
) -> dict[str, Whole]:
    """Return tensors by their names in the whole model, each with the parts that are written here.

    Args:
        where: What `places` returned.
        tensors: By their names on this process, such as parameters or means of them.
        first: Whether this is the process that writes what all of them have.

    """
    gathered: dict[str, Whole] = {}
    for name, tensor in tensors.items():
        _add(gathered, where[name], tensor, first, where[name].name)
    return gathered


def model_wholes(model: nn.Module, first: bool = True) -> dict[str, Whole]:
    """Return the parameters and buffers of a model; `first` as for `wholes`."""
    own = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    gathered = wholes(places(model), own, first)
    for prefix, tables in _fused(model):
        for part in tables.kept:
            place = _fused_place(prefix, tables, part.shard, first or not part.copied)
            _add(gathered, place, part.weight, first, place.name)
    return gathered


def optimizer_wholes(
    model: nn.Module, optimizer: Optimizer, first: bool = True
) -> dict[str, Whole]:
    """Return the state of an optimizer of a model; `first` as for `wholes`."""
    gathered: dict[str, Whole] = {}
    of_group, by_column = _group_keys(optimizer), _keys_by_column(optimizer)
    for place, state in _states(model, optimizer):
        for key, tensor in state.items():
            name = f"{place.name}.{key}"
            if key in of_group:
                gathered[name] = Whole.of(tensor, first)
            else:
                _add(gathered, place, tensor, first, name, by_column.get(key))
    for prefix, tables in _fused(model):
        for part in tables.kept:
            place = _fused_place(prefix, tables, part.shard, first or not part.copied)
            for key, tensor in part.state.items():
                _add(gathered, place, tensor, first, f"{place.name}.{key}")
    return gathered


def model_mismatch(model: nn.Module, stored: Any) -> str | None:
    """Say how the parameters and buffers in a file differ from those of a model; None if not.

    Args:
        model: Whose names and shapes are expected.
        stored: The file, opened by `safetensors.safe_open`.

    """
    return _mismatch(model_wholes(model), stored, ())


def optimizer_mismatch(model: nn.Module, optimizer: Optimizer, stored: Any) -> str | None:
    """Say how the state in a file differs from that of an optimizer; None if not.

    Args:
        model: That it trains.
        optimizer: Whose names and shapes are expected. Of parameters whose first gradients say what
            state they get anything is.
        stored: As for `model_mismatch`.

    """
    late = {
        id(parameter)
        for group in optimizer.param_groups
        if group.get("sparse") is None
        for parameter in group["params"]
    }
    where = places(model)
    skipped = tuple(f"{where[n].name}." for n, p in model.named_parameters() if id(p) in late)
    return _mismatch(optimizer_wholes(model, optimizer), stored, skipped)


def _mismatch(expected: Mapping[str, Whole], stored: Any, skipped: tuple[str, ...]) -> str | None:
    shapes = {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118
    for name in sorted(shapes.keys() | expected.keys()):
        stored_shape = shapes.get(name, "nothing")
        shape = expected[name].shape if name in expected else "nothing"
        if stored_shape != shape and not name.startswith(skipped):
            return f"it has {stored_shape} for {name}, expected {shape}"
    return None


@torch.no_grad()
def load_model(model: nn.Module, stored: Any) -> None:
    """Read what this process keeps of the parameters and buffers of a model.

    Args:
        model: It fits the file, see `model_mismatch`.
        stored: The file, opened by `safetensors.safe_open`.

    """
    where = places(model)
    for name, tensor in model.state_dict().items():
        tensor.copy_(local(where[name], stored))
    for prefix, tables in _fused(model):
        for part in tables.kept:
            part.weight.copy_(local(_fused_place(prefix, tables, part.shard), stored))


@torch.no_grad()
def load_optimizer(model: nn.Module, optimizer: Optimizer, stored: Any) -> None:
    """Read what this process keeps of the state of an optimizer; see `optimizer_mismatch`.

    State that an optimizer makes when it first sees a gradient is taken as it is in the file.

    Args:
        model: That it trains.
        optimizer: It fits the file.
        stored: As for `load_model`.

    """
    of_group, by_column = _group_keys(optimizer), _keys_by_column(optimizer)
    for place, state in _states(model, optimizer):
        prefix = f"{place.name}."
        names = [name for name in stored.keys() if name.startswith(prefix)]  # noqa: SIM118
        for key in (name.removeprefix(prefix) for name in names):
            if key in of_group:
                value = stored.get_tensor(prefix + key)
            else:
                value = local(place, stored, f".{key}", by_column.get(key))
            if key in state:
                state[key].copy_(value)
            else:
                state[key] = value
    for prefix, tables in _fused(model):
        for number, part in enumerate(tables.kept):
            place = _fused_place(prefix, tables, part.shard)
            for key in part.state:
                tables.load_state(number, key, local(place, stored, f".{key}"))


def local(place: Place, stored: Any, key: str = "", by_column: bool | None = None) -> Tensor:
    """Read what this process keeps of a tensor.

    Args:
        place: Where it lies.
        stored: The file, opened by `safetensors.safe_open`.
        key: Of an optimizer's state, such as `.sum`: appended to the name.
        by_column: As for `_add`.

    """
    slices = stored.get_slice(place.name + key)
    shape = slices.get_shape()
    if place.rows is None:
        return slices[:] if shape else stored.get_tensor(place.name + key)
    if by_column is None:
        by_column = len(shape) > 1
    parts = []
    for piece in place.pieces:
        rows = slice(piece.row, piece.row + piece.rows)
        columns = slice(piece.column, piece.column + place.width)
        if not by_column:
            parts.append(slices[rows])
        elif len(shape) == 2:
            parts.append(slices[rows, columns])
        else:
            parts.append(slices[rows, :, columns])
    if parts:
        return torch.cat(parts)
    none = (0, *shape[1:-1], place.width) if by_column else (0, *shape[1:])
    return slices[:0].new_empty(none)


def _add(
    gathered: dict[str, Whole],
    place: Place,
    tensor: Tensor,
    first: bool,
    name: str,
    by_column: bool | None = None,
) -> None:
    """Add the parts of a tensor that are written here to those of the whole one.

    Args:
        gathered: Wholes by name.
        place: Of the parameter that it is, or belongs to.
        tensor: A row for each row of the parameter.
        first: As for `wholes`.
        name: Of the whole.
        by_column: Whether its last dimension is the columns of the parameter; None for yes, unless
            it has a single dimension.

    """
    if place.rows is None:
        gathered[name] = Whole.of(tensor, first)
        return
    if by_column is None:
        by_column = tensor.dim() > 1
    shape = (*tensor.shape[1:-1], place.columns) if by_column else tensor.shape[1:]
    parts = tuple(
        Part(tensor[p.first : p.first + p.rows], p.row, p.column if by_column else 0)
        for p in place.pieces
        # What stands for a row as a whole is written with its first column.
        if p.written and (by_column or p.column == 0)
    )
    before = gathered[name].parts if name in gathered else ()
    gathered[name] = Whole(tensor.dtype, (place.rows, *shape), (*before, *parts))


def _distributed(model: nn.Module) -> list[tuple[str, DistributedCollection]]:
    """Return all sharded tables, with what their names in the model begin with."""
    return [
        (f"{path}." if path else "", module)
        for path, module in model.named_modules()
        if isinstance(module, DistributedCollection)
    ]


def _fused(model: nn.Module) -> list[tuple[str, FusedCollection]]:
    return [(p, tables) for p, tables in _distributed(model) if isinstance(tables, FusedCollection)]


def _piece(tables: DistributedCollection, shard: Shard, place: int, written: bool) -> Piece:
    row = sum(tables.layout.sizes[: shard.table]) + shard.first_row
    return Piece(place, shard.rows, row, shard.first_column, written)


def _fused_place(prefix: str, tables: FusedCollection, shard: Shard, written: bool = True) -> Place:
    """Return where a part of tables lies that are no parameters."""
    rows, piece = sum(tables.layout.sizes), _piece(tables, shard, 0, written)
    return Place(f"{prefix}weight", rows, tables.dim, shard.columns, (piece,))


def _states(model: nn.Module, optimizer: Optimizer) -> list[tuple[Place, dict[str, Tensor]]]:
    """Return where each parameter lies, with its state in the optimizer."""
    where = places(model)
    return [
        (where[name], optimizer.state[parameter]) for name, parameter in model.named_parameters()
    ]


def _group_keys(optimizer: Optimizer) -> set[str]:
    """Return the keys of what belongs to a parameter group as a whole."""
    return set(optimizer.group_state()) if isinstance(optimizer, SparseOptimizer) else set()


def _keys_by_column(optimizer: Optimizer) -> dict[str, bool]:
    """Return of each key of a table's state whether its last dimension is the table's columns."""
    if not isinstance(optimizer, SparseOptimizer):
        return {}
    narrow, wide = (optimizer.table_state(torch.empty(1, width)) for width in (2, 3))
    return {key: tensor.shape != wide[key].shape for key, tensor in narrow.items()}
