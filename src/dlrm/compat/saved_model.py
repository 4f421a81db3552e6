"""The file of `--save-model`: parameters, optimizer and random numbers of a run, to go on from.

One file in the safetensors format, whatever its name ends in. Tensors are named `model.*`,
`optimizer.<parameter>.*` and `rng`; what is left stands as JSON in the metadata, with a checksum
over all. Nothing is pickled, so that loading a file runs no code of whoever made it. Of several
processes the first writes it, and each reads what it keeps: any number of them go on from a file of
any number.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
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
from dlrm.nn.initializer import pieces
from dlrm.parallel.world import ALONE, World
from dlrm.tensor_file import Whole
from dlrm.training.state import (
    load_model,
    load_optimizer,
    model_mismatch,
    model_wholes,
    optimizer_mismatch,
    optimizer_wholes,
)

KEY = "dlrm_s_pytorch"
"""Name of the JSON in the metadata."""


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
    """Write a file, all of it or nothing; all processes call this.

    Raises:
        CheckpointError: It cannot be written.

    """
    tensors = {
        f"{kind}.{name}": _gathered(whole, world)
        for kind, wholes in (
            ("model", model_wholes(model, world.first)),
            ("optimizer", optimizer_wholes(model, optimizer, world.first)),
        )
        for name, whole in wholes.items()
    }
    if not world.first:
        return
    words: Any = rng.get_state(legacy=False)
    tensors["rng"] = torch.from_numpy(words["state"]["key"].astype(np.int64))
    drawn = {"pos": words["state"]["pos"], "gauss": [words["has_gauss"], words["gauss"]]}
    values = {"state": asdict(state), "rng": drawn}
    values["crc32"] = _crc32(values, tensors)
    try:
        with replacing(path) as unfinished:
            write_tensors(unfinished, tensors, {KEY: json.dumps(values)})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written: {error}") from None


def _gathered(whole: Whole, world: World) -> Tensor:
    """Return a tensor on the first process; elsewhere nothing of it.

    Rows go there some at a time, so that no other process needs memory for all of them.
    """
    if world.size == 1:
        return whole.parts[0].values
    rows, *row = whole.shape
    gathered = torch.empty(rows if world.first else 0, *row, dtype=whole.dtype)
    for first, last in pieces(rows, max(1, prod(row))):
        piece = torch.zeros(last - first, *row, dtype=whole.dtype)
        for part in whole.parts:
            low, high = max(first, part.row), min(last, part.row + len(part.values))
            if low < high:
                piece[low - first : high - first] = part.values[low - part.row : high - part.row]
        piece = world.sum(piece)
        if world.first:
            gathered[first:last] = piece
    return gathered


def load(
    path: Path,
    name: str,
    model: DLRM,
    optimizer: Optimizer | None,
    rng: RandomState,
    world: World = ALONE,
) -> State:
    """Read a file into a model and, where training goes on, its optimizer and random numbers.

    `name` is that of the optimizer. Without one only the model is wanted, and random numbers stay
    as they are. All processes call this.

    Raises:
        CheckpointError: The file is missing, is none that `save` wrote, or is of another model or
            optimizer.

    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; --load-model names one that was saved before")
    try:
        file = safe_open(path, framework="pt")
        values = parse_object((file.metadata() or {})[KEY].encode())
    except (OSError, SafetensorError, KeyError, ValueError):
        raise CheckpointError(
            f"{path}: not a model that --save-model wrote, or damaged; "
            "files pickled by the original are not loaded: a pickle can run any code"
        ) from None
    with file as stored:
        try:
            checksum = values.pop("crc32")
            # Read by one process, which is enough.
            intact = world.broadcast_object(
                not world.first
                or checksum == _crc32(values, {n: stored.get_tensor(n) for n in stored.keys()})  # noqa: SIM118
            )
            if not intact:
                raise CheckpointError(f"{path}: damaged: its checksum does not fit its content")
            state = State(**values["state"])
            drawn = values["rng"]
            key = stored.get_tensor("rng").numpy().astype(np.uint32)
        except (KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: damaged, or of another version: {error}") from None
        problem = model_mismatch(model, _Kind(stored, "model."))
        if optimizer is not None and not problem:
            if state.optimizer != name:
                was = state.optimizer
                raise CheckpointError(f"{path}: saved with --optimizer={was}, this run has {name}")
            problem = optimizer_mismatch(model, optimizer, _Kind(stored, "optimizer."))
        if problem:
            raise CheckpointError(
                f"{path}: saved from another model: {problem}; "
                "give the same --arch-* flags and data as when it was saved"
            )
        if optimizer is not None:
            load_optimizer(model, optimizer, _Kind(stored, "optimizer."))
            has_gauss, gauss = drawn["gauss"]
            rng.set_state(("MT19937", key, drawn["pos"], has_gauss, gauss))
        load_model(model, _Kind(stored, "model."))
    return state


class _Kind:
    """The tensors of a file whose names begin alike, as `safe_open` gives those of a file."""

    def __init__(self, file: Any, start: str):
        self.file, self.start = file, start

    def keys(self) -> list[str]:
        names = (name for name in self.file.keys() if name.startswith(self.start))  # noqa: SIM118
        return [name.removeprefix(self.start) for name in names]

    def get_slice(self, name: str) -> Any:
        return self.file.get_slice(self.start + name)

    def get_tensor(self, name: str) -> Tensor:
        return self.file.get_tensor(self.start + name)


def _crc32(values: dict[str, Any], tensors: Mapping[str, Tensor]) -> int:
    """Return a checksum of values and of tensors."""
    checksum = zlib.crc32(json.dumps(values, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        checksum = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), checksum)
        checksum = zlib.crc32(memoryview(tensor.contiguous().numpy()), checksum)  # pyright: ignore[reportArgumentType]
    return checksum
