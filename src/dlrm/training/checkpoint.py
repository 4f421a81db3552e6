"""Checkpoints: everything that a run needs to go on as if it had never stopped.

    checkpoints/step-000001000/
      model.safetensors        parameters
      average.safetensors      the mean of the parameters, where the run keeps one: it is the model
      optimizer.safetensors    optimizer state, as `<parameter>.<key>`
      progress.safetensors     training predictions since the last evaluation, random generator
      progress.json            step, epoch, cursor, running sums, the best so far, and a checksum of
                               each file above

A checkpoint is written to a hidden folder, synced and renamed, so a half-written one is never seen.
Nothing in it is a pickle.
"""

import json
import shutil
import zlib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrm.errors import CheckpointError
from dlrm.files import sync_folder, write_json, write_tensors
from dlrm.metrics import Metrics
from dlrm.training.average import Average

FORMAT = 1


@dataclass(kw_only=True)
class Progress:
    """Where a training run stands."""

    step: int = 0
    """Optimizer steps taken."""
    epoch: int = 0
    batch: int = 0
    """The data cursor: batches taken of this epoch."""
    samples: int = 0
    elapsed_s: float = 0.0
    """Seconds of training, over all sessions of the run."""
    loss_sum: float = 0.0
    loss_steps: int = 0
    """Loss summed over the steps since the last line of the log."""
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0
    """Evaluations since the best."""
    averaged: int = 0
    """Steps that are in the mean of the parameters."""
    finished: bool = False
    seen: Metrics = field(default_factory=Metrics)
    """Predictions on the training rows since the last evaluation, made before learning them."""

    def advance(self, samples: int) -> None:
        """Count a step on a batch of so many samples."""
        self.step += 1
        self.batch += 1
        self.samples += samples

    def next_epoch(self) -> None:
        """Put the cursor at the start of the next epoch."""
        self.epoch, self.batch = self.epoch + 1, 0

    def numbers(self) -> dict[str, Any]:
        """Return everything but the predictions."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "seen"}


def save(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    progress: Progress,
    keep: int,
    average: Average | None = None,
) -> Path:
    """Write a checkpoint, then remove old ones but the newest `keep` and the best.

    Args:
        folder: Of all checkpoints of the run.
        model: Its parameters.
        optimizer: Its state.
        progress: Where the run stands.
        keep: At least 1.
        average: Of the parameters, where the run keeps one.

    Returns:
        Its folder.

    Raises:
        CheckpointError: It cannot be written, e.g. because the disk is full.

    """
    folder.mkdir(exist_ok=True)
    target = folder / f"step-{progress.step:09d}"
    temporary = folder / f".{target.name}.tmp"
    for stale in folder.glob(".*.tmp"):
        shutil.rmtree(stale)
    temporary.mkdir()
    try:
        logits, labels = progress.seen.arrays()
        arrays: dict[str, dict[str, Tensor]] = {
            "model": {name: tensor.detach() for name, tensor in model.state_dict().items()},
            "optimizer": _optimizer_tensors(model, optimizer),
            "progress": {
                "seen_logits": torch.from_numpy(logits),
                "seen_labels": torch.from_numpy(labels),
                "torch_generator": torch.get_rng_state(),
            },
        }
        if average is not None and average.mean:
            arrays["average"] = average.mean
            progress.averaged = average.count
        for name, tensors in arrays.items():
            write_tensors(temporary / f"{name}.safetensors", tensors)
        write_json(
            temporary / "progress.json",
            {
                "format": FORMAT,
                **progress.numbers(),
                "crc32": {name: _crc32(temporary / f"{name}.safetensors") for name in arrays},
            },
        )
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{target} cannot be written ({error}); what was saved before is untouched, and the "
            "run can be resumed from it"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync_folder(folder)
    for old in steps(folder)[:-keep]:
        if old != progress.best_step:
            shutil.rmtree(folder / f"step-{old:09d}")
    return target


def steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a run's checkpoint folder, ascending."""
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def load(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizer | None,
    average: Average | None = None,
) -> Progress:
    """Put a checkpoint into a model and, unless None, its optimizer and torch's generator.

    Args:
        folder: Of all checkpoints of the run.
        step: Which.
        model: Gets the parameters to train on from; without an optimizer their mean, where the
            checkpoint has one.
        optimizer: Gets its state.
        average: Gets the mean of the parameters.

    Raises:
        CheckpointError: It is damaged, or belongs to another model.

    """
    path = folder / f"step-{step:09d}"
    numbers = read_progress(folder, step)
    averaged = "average" in numbers.get("crc32", {})
    _load_model(path, "average" if averaged and optimizer is None else "model", numbers, model)
    progress = Progress(**_known(numbers))
    if optimizer is not None:
        _load_optimizer(path, model, optimizer, _tensors(path, "optimizer", numbers))
        rest = _tensors(path, "progress", numbers)
        torch.set_rng_state(rest["torch_generator"])
        progress.seen.update(rest["seen_logits"].numpy(), rest["seen_labels"].numpy())
    if average is not None and averaged:
        average.restore(_tensors(path, "average", numbers), progress.averaged)
    return progress


def read_progress(folder: Path, step: int) -> dict[str, Any]:
    """Return the progress.json of a checkpoint.

    Raises:
        CheckpointError: It is missing, damaged, or of another format.

    """
    path = folder / f"step-{step:09d}" / "progress.json"
    try:
        numbers = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(numbers, dict) or numbers.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of format {FORMAT}")
    return numbers


def _known(numbers: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in numbers.items() if name not in ("format", "crc32")}


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _tensors(path: Path, name: str, numbers: dict[str, Any]) -> dict[str, Tensor]:
    file = path / f"{name}.safetensors"
    try:
        if _crc32(file) != numbers["crc32"][name]:
            raise CheckpointError(f"{file} is damaged: its checksum differs; {ADVICE}")
        return load_file(file)
    except (OSError, KeyError, SafetensorError) as error:
        raise _damaged(file, error) from error


ADVICE = "remove its folder to go on from the checkpoint before it"


def _damaged(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file} cannot be read ({error}); {ADVICE}")


def _load_model(path: Path, file: str, numbers: dict[str, Any], model: nn.Module) -> None:
    stored = _tensors(path, file, numbers)
    wanted = model.state_dict()
    for name in stored.keys() | wanted.keys():
        theirs = tuple(stored[name].shape) if name in stored else "nothing"
        ours = tuple(wanted[name].shape) if name in wanted else "nothing"
        if theirs != ours:
            raise CheckpointError(
                f"{path} belongs to another model: it has {theirs} for {name}, "
                f"this model has {ours}"
            )
    model.load_state_dict(stored)


def _optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }


def _load_optimizer(
    path: Path, model: nn.Module, optimizer: Optimizer, stored: dict[str, Tensor]
) -> None:
    for name, parameter in model.named_parameters():
        prefix = f"{name}."
        state = optimizer.state[parameter]
        mine = {key: value for key, value in stored.items() if key.startswith(prefix)}
        state.clear()
        for key, value in mine.items():
            name_in_state = key.removeprefix(prefix)
            # All state has one entry a row, only the number of the step stands for itself.
            if name_in_state != "step" and value.shape[:1] != parameter.shape[:1]:
                raise CheckpointError(f"{path} belongs to another optimizer: {key} does not fit")
            state[name_in_state] = value
