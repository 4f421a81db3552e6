"""One way to train a recipe: on so many processes, with such a sharding, engine and optimizer.

Each is a training as `dlrm train` does it, by the same loop, into a run directory that is read and
thrown away.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dlrm import terminal
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, Interrupted, WorldError
from dlrm.files import write_json
from dlrm.parallel.config import Engine
from dlrm.parallel.launch import launch
from dlrm.parallel.world import ALONE, World
from dlrm.planning.placement import Sharding
from dlrm.training.build import world_of
from dlrm.training.config import TrainConfig, from_dict, to_dict
from dlrm.training.trainer import Trainer

WORK = "work.json"
"""Says to the processes that are started what they train."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train a recipe."""

    optimizer: str
    """Name of a `dlrm.optim` optimizer, or `module:Class`"""
    engine: Engine = "dlrm"
    sharding: Sharding = "auto"
    procs: int = 1
    lr: float | None = None
    """Learning rate; that of the recipe if not given."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The losses of a variant."""

    variant: Variant
    losses: tuple[float, ...] = ()
    """Loss of each step, the mean over the whole batch; none where it was refused."""
    refused: str | None = None
    """Why a variant cannot be trained so; None where it was trained."""


def config_of(config: TrainConfig, variant: Variant, steps: int) -> TrainConfig:
    """Return the config that trains a recipe in one way, for so many steps and no more."""
    return replace(
        config,
        optim=replace(config.optim, name=variant.optimizer, lr=variant.lr or config.optim.lr),
        parallel=replace(config.parallel, sharding=variant.sharding),
        engine=variant.engine,
        # Without splits nothing is measured; one checkpoint, at the end, is what a run must leave.
        eval=replace(config.eval, every=steps, splits=(), patience=0),
        checkpoint=replace(config.checkpoint, every=steps, keep=1),
        epochs=max(config.epochs, steps),
        max_steps=steps,
        log_every=1,
        ensemble=1,
        ensemble_models=(),
        baseline=False,
        tensorboard=False,
    )


def outcome_of(
    config: TrainConfig, variant: Variant, steps: int, dataset: Dataset, folder: Path, world: World
) -> Outcome:
    """Train a variant of a recipe for some steps and return its losses, those of rank 0.

    All processes of the world call this, as many as the variant's `procs`; the run directory lies
    in the folder meanwhile.
    """
    changed = config_of(config, variant, steps)
    path = folder / f"run-{world.size}"
    try:
        trainer = Trainer.create(path, "parity", changed, dataset, world=world)
        trainer.fit()
        lines = trainer.run.metrics() if world.first else []
        outcome = Outcome(
            variant, tuple(line["loss"] for line in lines if line["event"] == "train")
        )
    except ConfigError as error:
        # Raised by all processes alike, before they have said anything to each other.
        outcome = Outcome(variant, refused=str(error))
    except Interrupted:
        # There is nothing to go on with.
        raise Interrupted("stopped") from None
    # The next variant takes the same folder.
    world.barrier()
    if world.first:
        shutil.rmtree(path, ignore_errors=True)
    world.barrier()
    return outcome


def alone(
    config: TrainConfig, variant: Variant, steps: int, dataset: Dataset, folder: Path
) -> tuple[float, ...]:
    """Return the losses of one process, this one; arguments as for `outcome_of`.

    Raises:
        ConfigError: It cannot be trained so.

    """
    with terminal.quiet():
        outcome = outcome_of(config, variant, steps, dataset, folder, ALONE)
    if outcome.refused is not None:
        raise ConfigError(outcome.refused)
    return outcome.losses


def launched(
    config: TrainConfig, variants: Sequence[Variant], steps: int, dataset: Dataset, folder: Path
) -> list[Outcome]:
    """Train variants on one number of processes, which are started once for all of them.

    Each process is `dlrm parity FOLDER`, which calls `train_all`.

    Raises:
        Interrupted: The user stopped them.
        WorldError: One of the processes has failed.

    """
    procs = variants[0].procs
    work = {
        "config": to_dict(config),
        "variants": [asdict(variant) for variant in variants],
        "steps": steps,
        "dataset": str(dataset.path.resolve()),
    }
    write_json(folder / WORK, work)
    status = launch(procs, ["parity", str(folder)])
    if status == 130:
        raise Interrupted("")
    if status:
        raise WorldError(f"the training on {procs} processes has failed")
    rows = json.loads((folder / f"{procs}.json").read_text())
    return [
        Outcome(variant, tuple(row["losses"]), row["refused"])
        for variant, row in zip(variants, rows, strict=True)
    ]


def train_all(folder: Path) -> None:
    """Train what `launched` asked for, as one of its processes."""
    work = json.loads((folder / WORK).read_text())
    config, dataset = from_dict(work["config"]), Dataset.open(Path(work["dataset"]))
    variants = [Variant(**variant) for variant in work["variants"]]
    with world_of(config) as world:
        outcomes = []
        with terminal.progress() as bar:
            for variant in bar.track(variants, description=f"{world.size} processes"):
                with terminal.quiet():
                    outcome = outcome_of(config, variant, work["steps"], dataset, folder, world)
                outcomes.append(asdict(outcome))
        if world.first:
            write_json(folder / f"{world.size}.json", outcomes)
