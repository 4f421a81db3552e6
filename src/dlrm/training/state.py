"""What tensors of a model and its optimizer are, whoever keeps which part of them.

Their names and shapes are those of the model on one process: of tables that are spread, each
process names the rows and columns that it keeps. So a checkpoint of many processes is that of one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.torchrec_parts import FusedCollection, Values
from dlrm.parallel.torchrec_parts import Part as FusedPart
from dlrm.tensor_file import Part, Whole


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of a tensor of this process, and where they lie in the whole."""

    first: int
    rows: int
    row: int
    column: int
    written: bool
    """Whether this process writes them: of copies only the first does."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor of this process lies in one of the whole model."""

    name: str
    """Of the whole one."""
    rows: int | None = None
    """Of the whole one; None where this process has all of it."""
    columns: int = 0
    width: int = 0
    """Columns of what this process has."""
    pieces: tuple[Piece, ...] = ()


def places(model: nn.Module) -> dict[str, Place]:
    """Return where each tensor of `model.state_dict()` lies in the whole model, in its order."""
    found = {name: Place(name) for name in model.state_dict()}
    for path, module in model.named_modules():
        if not isinstance(module, ShardedCollection):
            continue
        prefix = f"{path}." if path else ""
        starts = [sum(module.rows[:t]) for t in range(len(module.rows))]
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        pieces: dict[str, list[Piece]] = {name: [] for name in names.values()}
        for weight, shard, place, copied in module.kept:
            row = starts[shard.table] + shard.first_row
            written = not copied or module.wire.rank == 0
            piece = Piece(place, shard.rows, row, shard.first_column, written)
            pieces[names[id(weight)]].append(piece)
        for name, parameter in module.named_parameters():
            found[f"{prefix}{name}"] = Place(
                f"{prefix}weight",
                sum(module.rows),
                module.dim,
                parameter.shape[1],
                tuple(pieces[name]),
            )
    return found


def wholes(
    where: Mapping[str, Place], tensors: Mapping[str, Tensor], first: bool, key: str = ""
) -> dict[str, Whole]:
    """Return tensors by their names in the whole model, each with the parts that are written here.

    Args:
        where: What `places` returned.
        tensors: By their names on this process.
        first: Whether this is the process that writes what all of them have.
        key: Of the optimizer's state, appended to the names; such tensors have a row for each row
            of their parameter.

    """
    found: dict[str, Whole] = {}
    for name, tensor in tensors.items():
        place = where[name]
        full = place.name + key
        if place.rows is None:
            found[full] = Whole.of(tensor, first)
            continue
        shape = (place.rows, *tensor.shape[1:-1], place.columns)
        shape = shape if tensor.dim() > 1 else shape[:1]
        parts = [
            Part(tensor[p.first : p.first + p.rows], p.row, p.column)
            for p in place.pieces
            # What stands for a row as a whole is with all of its columns.
            if p.written and (tensor.dim() > 1 or p.column == 0)
        ]
        before = found[full].parts if full in found else ()
        found[full] = Whole(tensor.dtype, shape, (*before, *parts))
    return found


def model_wholes(model: nn.Module, first: bool = True) -> dict[str, Whole]:
    """Return the parameters and buffers of a model."""
    own = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    found = wholes(places(model), own, first)
    for path, tables in fused(model):
        parts = [(part, part.weight) for part in tables.parts()]
        found[f"{path}weight"] = _fused(tables, first, parts, flat=False)
    return found


def fused(model: nn.Module) -> list[tuple[str, FusedCollection]]:
    """Return tables that are no parameters, with what their names in a model begin with."""
    return [
        (f"{path}." if path else "", module)
        for path, module in model.named_modules()
        if isinstance(module, FusedCollection)
    ]


def load_fused(model: nn.Module, stored: Any, sums: Any = None) -> None:
    """Let tables that are no parameters read what this process keeps.

    Args:
        model: With or without such tables.
        stored: The file of the model, opened by `safetensors.safe_open`.
        sums: That of the optimizer, or None.

    """
    for path, tables in fused(model):
        weights = _reader(tables, stored, f"{path}weight")
        name = f"{path}weight.sum"
        kept = sums is not None and name in sums.keys()  # noqa: SIM118
        tables.load(weights, _reader(tables, sums, name) if kept else None)


def _reader(tables: FusedCollection, stored: Any, name: str) -> Values:
    starts = [sum(tables.rows[:t]) for t in range(len(tables.rows))]
    whole = stored.get_slice(name)
    flat = len(whole.get_shape()) == 1

    def read(t: int, first_row: int, last_row: int, left: int, right: int) -> Tensor:
        rows = slice(starts[t] + first_row, starts[t] + last_row)
        return whole[rows] if flat else whole[rows, left:right]

    return read


def _fused(
    tables: FusedCollection, first: bool, kept: Sequence[tuple[FusedPart, Tensor]], *, flat: bool
) -> Whole:
    """Return what a process keeps of such tables, or of a state of theirs.

    Args:
        tables: As `fused` returned them.
        first: As for `wholes`.
        kept: Parts, with their numbers.
        flat: Whether those are one number a row.

    """
    starts = [sum(tables.rows[:t]) for t in range(len(tables.rows))]
    parts = [
        Part(values, starts[part.table] + part.first_row, 0 if flat else part.first_column)
        for part, values in kept
        if (first or not part.replicated) and not (flat and part.first_column)
    ]
    shape = (sum(tables.rows), tables.dim)
    return Whole(torch.float32, shape[:1] if flat else shape, tuple(parts))


def optimizer_wholes(
    model: nn.Module, optimizer: Optimizer, first: bool = True
) -> dict[str, Whole]:
    """Return the state of an optimizer, as `<parameter>.<key>`."""
    where, found = places(model), {}
    keys: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state[parameter].items():
            if key == "step":
                # The number of the step: no tensor of rows.
                found[f"{where[name].name}.step"] = Whole.of(value, first)
            else:
                keys.setdefault(key, {})[name] = value
    for key, tensors in keys.items():
        found |= wholes(where, tensors, first, f".{key}")
    for path, tables in fused(model):
        if tables.optimizer.name != "sgd":
            flat = tables.optimizer.name == "rowwise_adagrad"
            parts = [(part, part.state["sum"]) for part in tables.parts()]
            found[f"{path}weight.sum"] = _fused(tables, first, parts, flat=flat)
    return found


def local(place: Place, whole: Any, key: str = "") -> Tensor:
    """Read what this process keeps of a tensor.

    Args:
        place: Where it lies.
        whole: The file, opened by `safetensors.safe_open`.
        key: As for `wholes`.

    """
    slices = whole.get_slice(place.name + key)
    if place.rows is None:
        return slices[:] if slices.get_shape() else whole.get_tensor(place.name + key)
    shape = slices.get_shape()
    parts = []
    for p in place.pieces:
        rows = slice(p.row, p.row + p.rows)
        columns = slice(p.column, p.column + place.width)
        match len(shape):
            case 1:
                parts.append(slices[rows])
            case 2:
                parts.append(slices[rows, columns])
            case _:
                parts.append(slices[rows, :, columns])
    if parts:
        return torch.cat(parts)
    none = (0, *shape[1:-1], place.width) if len(shape) > 1 else (0,)
    return slices[:0].new_empty(none)
