"""Checkpoints: everything that a run needs to go on as if it had never stopped.

    checkpoints/step-000001000/
      model.safetensors        parameters
      average.safetensors      the mean of the parameters, where the run keeps one: it is the model
      optimizer.safetensors    optimizer state, as `<parameter>.<key>`
      progress.safetensors     training predictions since the last evaluation, each process' running
                               loss, and its random generators
      progress.json            step, epoch, cursor, the best so far, the choices of the run (see
                               dlrm.ops.choice), and a checksum of each file

A checkpoint is written to a hidden folder, synced and renamed, so a half-written one is never seen.
Nothing in it is a pickle. Many processes write the files of one, each its rows into the same file:
any number of them, or a single one, can go on from it.
"""

import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn
from torch.optim import Optimizer

from dlrm.errors import CheckpointError, RunError
from dlrm.files import exchange, sync_folder
from dlrm.json_file import read_json, write_sealed
from dlrm.ops.choice import choices
from dlrm.parallel.world import ALONE, World
from dlrm.run import Run
from dlrm.tensor_file import Whole, create, write
from dlrm.training import state
from dlrm.training.average import Average
from dlrm.training.device import device_of
from dlrm.training.draws import Draws
from dlrm.training.progress import Progress

FORMAT = 2
_STEP = re.compile("step-[0-9]{9,18}")


def save(
    folder: Path,
    model: nn.Module,
    optimizer: Optimizer,
    progress: Progress,
    keep: int,
    average: Average | None = None,
    world: World = ALONE,
) -> Path:
    """Write a checkpoint and return its folder; remove old ones but the newest `keep` and the best.

    All processes of the run save, into the same folder; what they have seen is gathered by the
    first of them.

    Raises:
        CheckpointError: It cannot be written, e.g. because the disk is full.

    """
    progress.gather_seen(world)
    files: dict[str, dict[str, Whole]] = {
        "model": state.model_wholes(model, world.first),
        "optimizer": state.optimizer_wholes(model, optimizer, world.first),
        "progress": {
            name: Whole.of(tensor, world.first) for name, tensor in progress.tensors(world).items()
        },
    }
    if average is not None and average.mean:
        held = state.model_tensors(model).items()
        mean = (replace(tensor, tensor=average.mean[name]) for name, tensor in held)
        files["average"] = state.wholes(mean, world.first)
        progress.averaged = average.count
    target = folder / f"step-{progress.step:09d}"
    temporary = folder / f".{target.name}.tmp"
    try:
        with _together(world, target):
            if world.first:
                _make(folder, temporary, files)
        with _together(world, target):
            for name, tensors in files.items():
                write(temporary / f"{name}.safetensors", tensors)
        with _together(world, target):
            if world.first:
                checksums = {name: _crc32(temporary / f"{name}.safetensors") for name in files}
                numbers = {"format": FORMAT, "world": world.size, **progress.numbers()}
                numbers["choices"] = choices.used()
                write_sealed(temporary / "progress.json", {**numbers, "crc32": checksums})
                if target.exists():
                    exchange(temporary, target)
                else:
                    temporary.rename(target)
                sync_folder(folder)
    finally:
        if world.first:
            shutil.rmtree(temporary, ignore_errors=True)
    if world.first:
        remove_old(folder, keep, progress.best_step)
    return target


def remove_old(folder: Path, keep: int, best_step: int | None) -> None:
    """Remove all checkpoints but the newest `keep` and the best, and what was never finished."""
    for old in steps(folder)[:-keep]:
        if old != best_step:
            path = folder / f"step-{old:09d}"
            # At once, so that nothing half removed is taken for a checkpoint.
            path.rename(folder / f".{path.name}.tmp")
    for stale in folder.glob(".*.tmp"):
        stale.unlink() if stale.is_symlink() else shutil.rmtree(stale)


def _make(folder: Path, temporary: Path, files: dict[str, dict[str, Whole]]) -> None:
    """Make a checkpoint's files, with room for what is to be written."""
    folder.mkdir(exist_ok=True)
    if temporary.is_symlink():
        temporary.unlink()
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for name, tensors in files.items():
        create(temporary / f"{name}.safetensors", tensors)


@contextmanager
def _together(world: World, target: Path) -> Iterator[None]:
    """Wait for all at the end, and fail everywhere where one failed."""
    problem = None
    try:
        yield
    except (OSError, SafetensorError) as error:
        problem = f"{error}" if world.size == 1 else f"{error}, on rank {world.rank}"
    problems = [other for other in world.all_gather_object(problem) if other is not None]
    if problems:
        raise CheckpointError(
            f"{target} cannot be written ({problems[0]}); what was saved before is untouched, and "
            "the run can be resumed from it"
        )


def folder(run: Run) -> Path:
    """Return the folder of all checkpoints of a run."""
    return run.path / "checkpoints"


def steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints in a run's checkpoint folder, ascending."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name.removeprefix("step-")) for name in names if _STEP.fullmatch(name))


def best_step(run: Run) -> int:
    """Return the step of the best checkpoint of a run: the newest where none was chosen.

    Raises:
        RunError: The run has no checkpoint yet.

    """
    saved = steps(folder(run))
    if not saved:
        raise RunError(f"{run.path} has no checkpoint yet")
    best = read_progress(folder(run), saved[-1])["best_step"]
    return saved[-1] if best is None else best


def load_best(run: Run, model: nn.Module, world: World = ALONE) -> nn.Module:
    """Put the best parameters of a run into a model, of one process or of these; see `load`."""
    load(folder(run), best_step(run), model, None, world=world)
    return model


def load(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizer | None,
    average: Average | None = None,
    world: World = ALONE,
    draws: Draws | None = None,
) -> Progress:
    """Put a checkpoint into a model and, unless None, its optimizer and random numbers.

    From now on this process computes by the products that the run has chosen.
    All processes of the run load, as many as have saved or not.

    Args:
        folder: Folder of all checkpoints of the run.
        step: Which.
        model: Gets the parameters to train on from; without an optimizer their mean, where the
            checkpoint has one.
        optimizer: Gets its state.
        average: Gets the mean of the parameters.
        world: The processes of the run.
        draws: Gets where its generators stood; None for new ones.

    Raises:
        CheckpointError: It is damaged, or belongs to another model.

    """
    path = folder / f"step-{step:09d}"
    numbers = read_progress(folder, step)
    averaged = "average" in numbers.get("crc32", {})
    file = "average" if averaged and optimizer is None else "model"
    names = [file] if optimizer is None else [file, "optimizer", "progress"]
    names += ["average"] * (average is not None and averaged and file != "average")
    _check(path, names, numbers, world)
    with opened(path, file) as stored:
        if (problem := state.model_mismatch(model, stored)) is not None:
            raise CheckpointError(f"{path} belongs to another model: {problem}; {_AGAIN}")
        state.load_model(model, stored)
    choices.repeat(numbers.get("choices", {}))
    progress = Progress.of(numbers, draws or Draws(device_of(model)))
    if optimizer is not None:
        with opened(path, "optimizer") as stored:
            if (problem := state.optimizer_mismatch(model, optimizer, stored)) is not None:
                raise CheckpointError(f"{path} belongs to another optimizer: {problem}; {_AGAIN}")
            state.load_optimizer(model, optimizer, stored)
        with opened(path, "progress") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if len(tensors["torch_generator"]) != numbers.get("world", 1):
            raise CheckpointError(
                f"{path} says that {numbers.get('world', 1)} processes saved it, but has the "
                f"random numbers of {len(tensors['torch_generator'])}; {ADVICE}"
            )
        progress.restore(tensors, world)
    if average is not None and averaged:
        with opened(path, "average") as stored:
            held = state.model_tensors(model).items()
            mean = {name: tensor.place.read(stored, tensor.name) for name, tensor in held}
        average.restore(mean, progress.averaged)
    return progress


def read_progress(folder: Path, step: int) -> dict[str, Any]:
    """Return the progress.json of a checkpoint.

    Raises:
        CheckpointError: It is missing, damaged, or of another format.

    """
    path = folder / f"step-{step:09d}" / "progress.json"
    numbers = read_json(path, CheckpointError, keys=("format", "step", "best_step"), advice=ADVICE)
    if numbers["format"] != FORMAT:
        raise CheckpointError(f"{path}: not a checkpoint of format {FORMAT}")
    if numbers["step"] != step:
        raise CheckpointError(f"{path} is of step {numbers['step']}, not of {step}; {ADVICE}")
    return numbers


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            checksum = zlib.crc32(piece, checksum)
    return checksum


def _check(path: Path, names: list[str], numbers: dict[str, Any], world: World) -> None:
    """Read all files once, on one process, and compare their checksums."""
    problem = None
    if world.first:
        file = path
        try:
            for name in names:
                file = path / f"{name}.safetensors"
                if _crc32(file) != numbers["crc32"][name]:
                    problem = f"{file} is damaged: its checksum differs; {ADVICE}"
        except (OSError, KeyError) as error:
            problem = str(_damaged(file, error))
    if (problem := world.broadcast_object(problem)) is not None:
        raise CheckpointError(problem)


@contextmanager
def opened(path: Path, name: str) -> Iterator[Any]:
    """Open a file of tensors of a checkpoint; a CheckpointError where it cannot be read."""
    file = path / f"{name}.safetensors"
    try:
        stored = safe_open(file, "pt")
    except (OSError, SafetensorError) as error:
        raise _damaged(file, error) from error
    with stored as tensors:
        yield tensors


ADVICE = "remove its folder to go on from the checkpoint before it"
_AGAIN = "if an earlier release trained the run, whose models had other parts, train it again"


def _damaged(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file} cannot be read ({error}); {ADVICE}")
