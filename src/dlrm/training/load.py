"""The model of a run, whatever it is, and what its training took."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from dlrm.errors import RunError
from dlrm.parallel.world import ALONE, World
from dlrm.run import Run
from dlrm.training import ensemble
from dlrm.training.build import build
from dlrm.training.checkpoint import load_best
from dlrm.training.config import from_dict
from dlrm.training.draws import Draws


def load_model(run: Run, world: World = ALONE, device: torch.device | None = None) -> nn.Module:
    """Return the trained model of a run: its best checkpoint, or the mean of its members' best.

    Args:
        run: Run of one process, or many.
        world: The processes that load it, each a part of its tables; one alone takes all of
            them, without the engine that trained it.
        device: Where to; None for where the run was trained.

    Returns:
        In evaluation mode; `forward(batch) -> logits (B, K)`.

    Raises:
        RunError: It, or one of its members, has no checkpoint yet.
        ConfigError: There is no such device.

    """
    config = from_dict(run.config)
    if config.ensemble > 1:
        members = (Run.open(ensemble.folder(run, k)) for k in range(config.ensemble))
        loaded = (load_model(member, world, device) for member in members)
        # Predictions of a regression are what comes out: there are no probabilities to take.
        regression = run.schema.task == "regression"
        return ensemble.Ensemble(loaded, "logits" if regression else config.ensemble_mean).eval()
    if world.size == 1:
        # Whatever trained it: checkpoints hold whole tables, and one process needs no engine.
        config = replace(config, engine="dlrm")
    # What parameters start from is lost at once, and must be missing in no other training.
    with Draws().lent():
        built = build(config, run.schema, world, device=device)
    load_best(run, built.model, world)
    return built.net.eval()


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingStats:
    """Steps, samples and seconds of a training; of an ensemble those of all members together."""

    step: int
    """Optimizer steps taken."""
    samples: int
    """Samples learned from, each as often as it was."""
    elapsed_s: float
    """Seconds of training, without evaluation."""

    @property
    def samples_per_s(self) -> float:
        """Samples a second."""
        return self.samples / self.elapsed_s


def training_stats(run: Run) -> TrainingStats:
    """Return what the training of a finished run took.

    Raises:
        RunError: It has not begun to train.

    """
    rows = run.metrics()
    counted = [row for row in rows if row["event"] == "member"]
    counted = counted or [row for row in rows if row["event"] == "train"][-1:]
    if not counted:
        raise RunError(f"{run.path} has trained no step yet")
    keys = ("step", "samples", "elapsed_s")
    if not all(isinstance(row.get(key), int | float) for row in counted for key in keys):
        raise RunError(f"{run.path / 'metrics.jsonl'}: an event lacks one of {', '.join(keys)}")
    return TrainingStats(**{key: sum(row[key] for row in counted) for key in keys})
