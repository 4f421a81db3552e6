"""The file of `--save-model`: parameters, optimizer and random numbers of a run, to go on from.

One file in the safetensors format, whatever its name ends in. Tensors are named `model.*`,
`optimizer.<parameter>.*` and `rng`; what is left stands as JSON in the metadata, with a checksum
over all. Nothing is pickled, so that loading a file runs no code of whoever made it, and it is read
some rows at a time, whatever its size. Of several processes the first writes it, and each reads
what it keeps: any number of them go on from a file of any number.
"""

import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer

from dlrm.errors import CheckpointError
from dlrm.files import replacing, write_tensors
from dlrm.json_file import parse_object
from dlrm.models.dlrm import DLRM
from dlrm.nn.embedding import pieces
from dlrm.parallel.world import ALONE, World
from dlrm.training.state import Place, local, model_wholes, places


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Position of a run when it was saved."""

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

    All processes call this; the first gathers and writes.

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

    Without an optimizer only the model is wanted, and random numbers stay as they are. All
    processes call this.

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
        expected, shape = mine.get(name), saved.get(name)
        if expected != shape:
            raise CheckpointError(
                f"{path}: saved from another model: {name} has shape {shape}, expected {expected}; "
                "give the same --arch-* flags and data as when it was saved"
            )


KEY = "dlrm_s_pytorch"
"""Name of the JSON in the metadata."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a file, and return it and the values in it.

    Raises:
        CheckpointError: It is missing, or is no such file.

    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; --load-model names one that was saved before")
    try:
        file = safe_open(path, framework="pt")
        metadata = parse_object((file.metadata() or {})[KEY].encode())
    except (OSError, SafetensorError, KeyError, ValueError):
        raise CheckpointError(
            f"{path}: not a model that --save-model wrote, or damaged; "
            "files pickled by the original are not loaded: a pickle can run any code"
        ) from None
    with file as stored:
        yield stored, metadata


class Stored(Mapping[str, Any]):
    """Tensors of a file, of which only those rows are read that are asked for."""

    def __init__(self, file: Any):
        self.file = file

    def __getitem__(self, name: str) -> Any:
        slices = self.file.get_slice(name)
        return slices if slices.get_shape() else self.file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.file.keys())

    def __len__(self) -> int:
        return len(self.file.keys())


def crc32(values: dict[str, Any], tensors: Mapping[str, Any]) -> int:
    """Return a checksum of values and of tensors, which may be slices of a file."""
    checksum = zlib.crc32(json.dumps(values, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        whole = isinstance(tensor, Tensor)
        shape = tuple(tensor.shape if whole else tensor.get_shape())
        dtype = tensor.dtype if whole else tensor[:0].dtype
        checksum = zlib.crc32(f"{name} {dtype} {shape}".encode(), checksum)
        if not shape:
            checksum = zlib.crc32(tensor.numpy().tobytes(), checksum)
            continue
        for first, last in pieces(shape[0], max(1, prod(shape[1:]))):
            checksum = zlib.crc32(tensor[first:last].numpy().tobytes(), checksum)
    return checksum
