"""Where a training run stands: what a checkpoint keeps beside the model and its optimizer."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from dlrm.metrics import Metrics
from dlrm.parallel.world import World
from dlrm.training.draws import Draws
from dlrm.training.evaluate import gathered

TENSORS = ("loss_sum", "seen", "draws")
"""Fields of `Progress` that are no plain numbers."""


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
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    """float64, the losses of this process since the last line of the log, on its device."""
    loss_steps: int = 0
    """Steps since the last line of the log."""
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0
    """Evaluations since the best one."""
    averaged: int = 0
    """Steps that are in the mean of the parameters."""
    finished: bool = False
    seen: Metrics = field(default_factory=Metrics)
    """Predictions of the training rows since the last evaluation, made before learning them."""
    draws: Draws = field(default_factory=Draws)
    """Random numbers of this process."""

    def advance(self, samples: int) -> None:
        """Count a step on a batch of so many samples."""
        self.step += 1
        self.batch += 1
        self.samples += samples

    def next_epoch(self) -> None:
        """Put the cursor at the start of the next epoch."""
        self.epoch, self.batch = self.epoch + 1, 0

    @classmethod
    def of(cls, numbers: Mapping[str, Any], draws: Draws) -> "Progress":
        """Return progress from what `numbers` returned, other keys ignored, and random numbers."""
        names = {f.name for f in fields(cls)}
        return cls(**{name: numbers[name] for name in numbers if name in names}, draws=draws)

    def numbers(self) -> dict[str, Any]:
        """Return everything but the tensors."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in TENSORS}

    def gather_seen(self, world: World) -> None:
        """Collect `seen` of all processes in that of the first, and empty it elsewhere."""
        if world.size == 1:
            return
        parts = gathered(self.seen, world)
        self.seen = Metrics(self.seen.num_labels, self.seen.task)
        for part in parts if world.first else ():
            self.seen.merge(part)

    def tensors(self, world: World) -> dict[str, Tensor]:
        """Return all other fields: predictions of this process, the others a row per process."""
        logits, labels, weights = self.seen.arrays()
        by_rank = {"loss_sum": self.loss_sum.cpu(), **self.draws.states()}
        return {
            "seen_logits": torch.from_numpy(logits),
            "seen_labels": torch.from_numpy(labels),
            "seen_weights": torch.empty(0) if weights is None else torch.from_numpy(weights),
            **{name: torch.cat(world.gather(tensor[None])) for name, tensor in by_rank.items()},
        }

    def restore(self, tensors: Mapping[str, Tensor], world: World) -> None:
        """Take over what `tensors` returned, on as many processes as then or on another number."""
        sums, rank = tensors["loss_sum"], world.rank
        alike = len(sums) == world.size
        self.loss_sum = sums[rank] if alike else sums.sum() * world.first
        logits, labels, weights = (tensors[f"seen_{n}"] for n in ("logits", "labels", "weights"))
        self.seen = Metrics(logits.shape[1])
        if world.first:
            self.seen.update(logits, labels, weights if len(weights) else None)
        if not (alike or world.first):
            # Where there was no such process, it draws numbers of its own.
            self.draws.seed(self.step * world.size + rank)
            return
        # A copy: of a part of a tensor torch reads the memory where the whole begins.
        states = {name: rows[rank].clone() for name, rows in tensors.items() if "generator" in name}
        self.draws.restore(states)
