"""The file of `--save-model`: parameters, optimizer and random numbers of a run, to go on from.

One file in the safetensors format, whatever its name ends in. Tensors are named `model.*`,
`optimizer.<parameter>.*` and `rng`; what is left stands as JSON in the metadata. Nothing is
pickled, so that loading a file runs no code of whoever made it.
"""

import json
import os
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import RandomState
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer

from dlrm.errors import CheckpointError
from dlrm.files import sync_folder, write_tensors
from dlrm.models.dlrm import DLRM

KEY = "dlrm_s_pytorch"
"""Of the JSON in the metadata."""


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


def save(path: Path, state: State, model: DLRM, optimizer: Optimizer, rng: RandomState) -> None:
    """Write a file, all of it or nothing.

    Raises:
        CheckpointError: It cannot be written.

    """
    inner = optimizer.state_dict()["state"]
    words: Any = rng.get_state(legacy=False)
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {
        f"optimizer.{parameter}.{name}": tensor
        for parameter, values in inner.items()
        for name, tensor in values.items()
    }
    tensors["rng"] = torch.from_numpy(words["state"]["key"].astype(np.int64))
    drawn = {"pos": words["state"]["pos"], "gauss": [words["has_gauss"], words["gauss"]]}
    values = {"state": asdict(state), "rng": drawn}
    values["crc32"] = _crc32(tensors, values)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_tensors(unfinished, tensors, {KEY: json.dumps(values)})
        unfinished.replace(path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written: {error}") from None
    finally:
        unfinished.unlink(missing_ok=True)


def load(
    path: Path, name: str, model: DLRM, optimizer: Optimizer | None, rng: RandomState
) -> State:
    """Read a file into a model and, where training goes on, its optimizer and random numbers.

    Args:
        path: A file that `save` wrote.
        name: Name of the optimizer.
        model: Its parameters are overwritten.
        optimizer: Its state is overwritten; None when only the model is wanted.
        rng: Overwritten too, unless only the model is wanted.

    Raises:
        CheckpointError: The file is missing, is none that `save` wrote, or is of another model or
            optimizer.

    """
    tensors, metadata = _read(path)
    try:
        checksum = metadata.pop("crc32")
        if checksum != _crc32(tensors, metadata):
            raise CheckpointError(f"{path}: damaged: its checksum does not fit its content")
        state = State(**metadata["state"])
        drawn = metadata["rng"]
        key = tensors.pop("rng").numpy().astype(np.uint32)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged, or of another version: {error}") from None
    of_model = _named(tensors, "model.")
    _check_fit(path, model.state_dict(), of_model)
    if optimizer is not None:
        if state.optimizer != name:
            was = state.optimizer
            raise CheckpointError(f"{path}: saved with --optimizer={was}, this run has {name}")
        inner: dict[int, dict[str, Tensor]] = {}
        for place, tensor in _named(tensors, "optimizer.").items():
            parameter, kind = place.split(".")
            inner.setdefault(int(parameter), {})[kind] = tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": inner, "param_groups": groups})
        has_gauss, gauss = drawn["gauss"]
        rng.set_state(("MT19937", key, drawn["pos"], has_gauss, gauss))
    model.load_state_dict(of_model)
    return state


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; --load-model names one that was saved before")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        return tensors, json.loads(metadata[KEY])
    except (SafetensorError, KeyError, json.JSONDecodeError):
        raise CheckpointError(
            f"{path}: not a model that --save-model wrote, or damaged; "
            "files pickled by the original are not loaded: a pickle can run any code"
        ) from None


def _crc32(tensors: dict[str, Tensor], values: dict[str, Any]) -> int:
    checksum = zlib.crc32(json.dumps(values, sort_keys=True).encode())
    for name in sorted(tensors):
        kind = f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}"
        checksum = zlib.crc32(kind.encode(), checksum)
        checksum = zlib.crc32(tensors[name].numpy().data.cast("B"), checksum)
    return checksum


def _named(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _check_fit(path: Path, mine: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    for name in sorted(mine.keys() | saved.keys()):
        ours, its = (tuple(x[name].shape) if name in x else None for x in (mine, saved))
        if ours != its:
            raise CheckpointError(
                f"{path}: saved from another model: {name} has shape {its}, expected {ours}; "
                "give the same --arch-* flags and data as when it was saved"
            )
