"""Whether several processes learn what one learns, loss by loss.

Processes add up the same numbers in another order than one does, which changes the last of their
digits: some 1e-7 of a loss. In rare steps that decides on which side of 0 the input of a ReLU is;
and because the first steps of Adagrad do not depend on how large a gradient is, the losses are then
1e-5 to 1e-3 apart within a few steps. Any other order of the sums does the same, which is how
rounding is told from an error: see `Parity.verdict`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from math import isfinite
from pathlib import Path
from typing import Literal

from dlrm import optim
from dlrm.data.store import Dataset
from dlrm.parallel.config import Engine
from dlrm.planning.placement import Sharding
from dlrm.training.config import TrainConfig
from dlrm.training.reordered import config_of
from dlrm.training.variant import Outcome, Variant, alone, launched

Verdict = Literal["equal", "rounding", "different", "diverged", "refused"]
Losses = tuple[float, ...]

DIVERGED = 10.0
"""Times the first loss, above which a training has diverged that ends there: any rounding then ends
elsewhere. Adagrad's first steps may leap as far, and come back."""
SIZE, SOON = 10.0, 0.5
"""Rounding is in each step at most so many times as large as any reordered training has been by
then, where its steps are counted from here to step / SOON."""
ORDERS = (8, 24)
"""In which one process takes the samples of its batches, where losses are off: in each step that
rounding can turn, most likely one of the first turns it too. Where they do not, so many follow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """Variants beside the training on one process."""

    recipe: str
    config: TrainConfig
    steps: int
    tolerance: float
    """Largest difference of a loss that counts as equal."""
    alone: dict[str, Losses]
    """The losses of one process, by optimizer."""
    reordered: dict[str, tuple[Losses, ...]]
    """The losses of one process that takes the samples of each batch in other orders, by optimizer,
    where a variant of it is off."""
    outcomes: tuple[Outcome, ...]

    def differences(self, outcome: Outcome) -> list[float]:
        """Return by how much the loss of each step is off, always positive."""
        return self._off(outcome.variant.optimizer, outcome.losses)

    def worst(self, outcome: Outcome) -> tuple[float, int]:
        """Return the largest difference, and its step, counted from 1."""
        differences = self.differences(outcome)
        largest = max(differences)
        return largest, differences.index(largest) + 1

    def verdict(self, outcome: Outcome) -> Verdict:
        """Return what the difference of a variant means.

        Returns:
            `equal` within the tolerance; `diverged` where the loss of one process grows without
            bound, so that nothing can be told; `rounding` where reordered training on one process
            goes off as much and as soon; else `different`. Errors of parallel training show in the
            first steps, where reordered training is equal.

        """
        if outcome.refused is not None:
            return "refused"
        differences = self.differences(outcome)
        if max(differences) <= self.tolerance:
            return "equal"
        optimizer = outcome.variant.optimizer
        if self.diverged(optimizer):
            return "diverged"
        controls = [self._off(optimizer, losses) for losses in self.reordered.get(optimizer, ())]
        # What rounding may come to by each step.
        reached = list(accumulate((max(step) for step in zip(*controls, strict=True)), max))
        explained = bool(reached) and all(
            off <= SIZE * reached[min(len(reached), int(step / SOON)) - 1]
            for step, off in enumerate(differences, start=1)
            if off > self.tolerance
        )
        return "rounding" if explained else "different"

    @property
    def compared(self) -> list[Outcome]:
        """The variants that were trained."""
        return [outcome for outcome in self.outcomes if outcome.refused is None]

    def with_verdict(self, verdict: Verdict) -> list[Outcome]:
        """Return the variants of one verdict."""
        return [outcome for outcome in self.outcomes if self.verdict(outcome) == verdict]

    @property
    def max_abs_diff(self) -> float:
        """The largest difference of all."""
        return max(self.worst(outcome)[0] for outcome in self.compared)

    @property
    def reordered_max_abs_diff(self) -> float | None:
        """The largest difference of reordered training; None where none was needed."""
        largest = [
            max(self._off(name, losses))
            for name, every in self.reordered.items()
            for losses in every
        ]
        return max(largest, default=None)

    def diverged(self, optimizer: str) -> bool:
        """Return whether the training on one process went off to large losses."""
        losses = self.alone[optimizer]
        return not (all(map(isfinite, losses)) and losses[-1] <= DIVERGED * losses[0])

    @property
    def holds(self) -> bool:
        """Whether nothing is different but by rounding, and that can be told."""
        return not (self.with_verdict("different") or self.with_verdict("diverged"))

    def envelope(self, procs: int) -> list[float]:
        """Return for each step the largest difference of any variant on so many processes."""
        every = [self.differences(o) for o in self.compared if o.variant.procs == procs]
        return [max(step) for step in zip(*every, strict=True)]

    def _off(self, optimizer: str, losses: Sequence[float]) -> list[float]:
        return [abs(a - b) for a, b in zip(losses, self.alone[optimizer], strict=True)]


def compare(
    recipe: str,
    config: TrainConfig,
    dataset: Dataset,
    folder: Path,
    *,
    procs: Sequence[int],
    steps: int,
    shardings: Sequence[Sharding],
    optimizers: Sequence[str],
    engines: Sequence[Engine],
    tolerance: float,
    lr: float | None,
) -> Parity:
    """Train on one process and on several, and where losses are off in other orders, too.

    Run directories lie in the folder meanwhile. What the settings mean says `dlrm.parity`, which
    checks them.
    """

    def rate(optimizer: str) -> float:
        if lr is not None:
            return lr
        recipe_lr = config.optim.lr
        if optimizer == config.optim.name:
            return recipe_lr
        return optim.RATES.get(optimizer, recipe_lr)

    plain = {name: Variant(name, lr=rate(name)) for name in optimizers}
    losses = {name: alone(config, way, steps, dataset, folder) for name, way in plain.items()}
    outcomes: list[Outcome] = []
    for world in sorted({*procs} - ({1} if "torchrec" not in engines else set())):
        # The tables of another engine are other ones on one process too.
        ways = [
            Variant(optimizer, engine, sharding, world, plain[optimizer].lr)
            for optimizer in optimizers
            for engine in (engines if world > 1 else ("torchrec",))
            for sharding in (shardings if world > 1 else ("auto",))
        ]
        outcomes += launched(config, ways, steps, dataset, folder)
    parity = Parity(
        recipe=recipe, config=config, steps=steps, tolerance=tolerance, alone=losses, reordered={},
        outcomes=tuple(outcomes),
    )  # fmt: skip
    seeds = iter(range(sum(ORDERS)))
    for more in ORDERS:
        off = {outcome.variant.optimizer for outcome in parity.with_verdict("different")}
        others = [
            replace(config, model=config_of(config.model, seed)) for seed in islice(seeds, more)
        ]
        for optimizer in off:
            parity.reordered[optimizer] = (
                *parity.reordered.get(optimizer, ()),
                *(alone(other, plain[optimizer], steps, dataset, folder) for other in others),
            )
    return parity
