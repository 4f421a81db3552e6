"""One way to train a recipe: on so many processes, with such a sharding, engine and optimizer.

Each is a training as `dlrm train` does it, by the same loop, into a run directory that is read and
thrown away.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, Interrupted
from dlrm.parallel.config import Engine
from dlrm.parallel.world import World
from dlrm.planning.placement import Sharding
from dlrm.training.config import TrainConfig
from dlrm.training.trainer import Trainer


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
    """Train a variant and return its losses.

    Args:
        config: Of the recipe.
        variant: How; its `procs` is the size of the world.
        steps: How long.
        dataset: What is learned.
        folder: Where its run directory may lie meanwhile.
        world: The processes, all of which call this; the losses are the first one's.

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


def to_dict(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Return outcomes JSON-ready."""
    return [asdict(outcome) for outcome in outcomes]


def from_dict(rows: Sequence[dict[str, Any]]) -> list[Outcome]:
    """Rebuild what `to_dict` returned."""
    return [
        Outcome(Variant(**row["variant"]), tuple(row["losses"]), row["refused"]) for row in rows
    ]
