"""The file of `--save-model`: parameters, optimizer and random numbers of a run, to go on from.

One file in the safetensors format, whatever its name ends in. Tensors are named `model.*`,
`optimizer.<parameter>.*` and `rng`; what is left stands as JSON in the metadata. Nothing is
pickled, so that loading a file runs no code of whoever made it. Of several processes the first
writes it, and each reads what it keeps: any number of them go on from a file of any number.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from safetensors import SafetensorError
from torch import Tensor
from torch.optim import Optimizer

from dlrm.compat.saved_file import KEY, Stored, crc32, opened
from dlrm.errors import CheckpointError
from dlrm.files import replacing, write_tensors
from dlrm.models.dlrm import DLRM
from dlrm.nn.embedding import pieces
from dlrm.parallel.world import ALONE, World
from dlrm.training.state import Place, local, model_wholes, places


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Where a run was when it was saved."""

    epoch: int
    """Epoch, from 0."""
    iteration: int
    """Batches of that epoch that were trained on."""
    steps: int
    """Optimizer steps since the start of training."""
    epochs: int
    """Epochs that the run was to last."""
    batches: int
    """Training batches in an epoch."""
    test_batches: int
    train_loss: float
    test_accuracy: float
    optimizer: str
    """Name of the optimizer."""


def save(
    path: Path,
    state: State,
    model: DLRM,
    optimizer: Optimizer,
    rng: RandomState,
    world: World = ALONE,
) -> None:
    """Write a file, all of it or nothing.

    Args:
        path: The file.
        state: Where the run is.
        model: Its parameters are written.
        optimizer: Its state is written.
        rng: Random numbers of the run.
        world: The processes, all of which call this; the first gathers and writes.

    Raises:
        CheckpointError: It cannot be written.

    """
    where = places(model)
    tensors = {
        f"model.{where[name].name}": _gathered(where[name], tensor, world)
        for name, tensor in model.state_dict().items()
    }
    tensors |= {
        f"optimizer.{number}.{key}": _gathered(where[name], tensor, world)
        for number, (name, parameter) in enumerate(model.named_parameters())
        for key, tensor in optimizer.state[parameter].items()
    }
    if not world.first:
        return
    words: Any = rng.get_state(legacy=False)
    tensors["rng"] = torch.from_numpy(words["state"]["key"].astype(np.int64))
    drawn = {"pos": words["state"]["pos"], "gauss": [words["has_gauss"], words["gauss"]]}
    values = {"state": asdict(state), "rng": drawn}
    values["crc32"] = crc32(values, tensors)
    try:
        with replacing(path) as unfinished:
            write_tensors(unfinished, tensors, {KEY: json.dumps(values)})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written: {error}") from None


def _gathered(place: Place, tensor: Tensor, world: World) -> Tensor:
    """Return the whole of a tensor that is spread, on the first process; elsewhere nothing of it.

    Rows go there some at a time, so that no other process needs memory for all of them.
    """
    if place.rows is None or not tensor.dim():
        return tensor
    shape = tensor.shape[1:]
    whole = tensor.new_empty(place.rows if world.first else 0, *shape)
    for first, last in pieces(place.rows, max(1, shape.numel())):
        part = tensor.new_zeros(last - first, *shape)
        for kept in place.pieces:
            low, high = max(first, kept.row), min(last, kept.row + kept.rows)
            if low < high:
                at = kept.first - kept.row
                part[low - first : high - first] = tensor[at + low : at + high]
        part = world.sum(part)
        if world.first:
            whole[first:last] = part
    return whole


def load(
    path: Path,
    name: str,
    model: DLRM,
    optimizer: Optimizer | None,
    rng: RandomState,
    world: World = ALONE,
) -> State:
    """Read a file into a model and, where training goes on, its optimizer and random numbers.

    Args:
        path: A file that `save` wrote.
        name: Name of the optimizer.
        model: Its parameters are overwritten.
        optimizer: Its state is overwritten; None when only the model is wanted.
        rng: Overwritten too, unless only the model is wanted.
        world: The processes, all of which call this.

    Raises:
        CheckpointError: The file is missing, is none that `save` wrote, or is of another model or
            optimizer.

    """
    with opened(path) as (stored, metadata):
        try:
            checksum = metadata.pop("crc32")
            # Read by one process, which is enough.
            intact = world.broadcast_object(
                not world.first or checksum == crc32(metadata, Stored(stored))
            )
            if not intact:
                raise CheckpointError(f"{path}: damaged: its checksum does not fit its content")
            state = State(**metadata["state"])
            drawn = metadata["rng"]
            key = stored.get_tensor("rng").numpy().astype(np.uint32)
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: damaged, or of another version: {error}") from None
        names = list(stored.keys())
        _check_fit(path, model, {n: stored.get_slice(n).get_shape() for n in names})
        if optimizer is not None and state.optimizer != name:
            was = state.optimizer
            raise CheckpointError(f"{path}: saved with --optimizer={was}, this run has {name}")
        where = places(model)
        if optimizer is not None:
            # The file numbers parameters in the model's order, torch's optimizers in their own.
            places_of = [(where[n], id(p)) for n, p in model.named_parameters()]
            groups = optimizer.param_groups
            order = [id(p) for group in groups for p in group["params"]]
            state_of: dict[int, dict[str, Tensor]] = {}
            for full in (n for n in names if n.startswith("optimizer.")):
                _, number, kind = full.split(".")
                place, parameter = places_of[int(number)]
                state_of.setdefault(order.index(parameter), {})[kind] = _read(stored, place, full)
            kept = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state_of, "param_groups": kept})
            has_gauss, gauss = drawn["gauss"]
            rng.set_state(("MT19937", key, drawn["pos"], has_gauss, gauss))
        for full, tensor in model.state_dict().items():
            tensor.copy_(_read(stored, where[full], f"model.{where[full].name}"))
    return state


def _read(stored: Any, place: Place, name: str) -> Tensor:
    """Return what this process keeps of a tensor of the file."""
    if not stored.get_slice(name).get_shape():
        return stored.get_tensor(name)
    return local(replace(place, name=name), stored)


def _check_fit(path: Path, model: DLRM, shapes: Mapping[str, Any]) -> None:
    mine = {name: whole.shape for name, whole in model_wholes(model).items()}
    saved = {
        name.removeprefix("model."): tuple(shape)
        for name, shape in shapes.items()
        if name.startswith("model.")
    }
    for name in sorted(mine.keys() | saved.keys()):
        ours, its = mine.get(name), saved.get(name)
        if ours != its:
            raise CheckpointError(
                f"{path}: saved from another model: {name} has shape {its}, expected {ours}; "
                "give the same --arch-* flags and data as when it was saved"
            )
