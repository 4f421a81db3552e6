"""The cost model: what operators take on a machine, fitted to steps that were measured there.

    seconds(operator) = sum over terms of weight[kind, term] * seconds of the term at the ceilings

The terms say what limits an operator, the weights how far from its limits the kernels of its kind
stay: a weight of 1 is a kernel that nothing but that limit holds up. Weights are at least 0 and
have the least squared relative error over the measured operators, of which those that are far off
count less (Cauchy's loss).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from statistics import median
from typing import Any

import numpy as np

from dlrm.bench.cost.limits import limits
from dlrm.bench.cost.nonnegative import solve
from dlrm.bench.cost.work import Terms, Work
from dlrm.planning.ceilings import Ceilings

FOLDS = 5
ROUNDS = 6
FAR = 0.3
"""Relative error from which on a measurement counts less and less."""
OTHER = "other"
"""What a step takes beside its operators."""


@dataclass(frozen=True, slots=True)
class Measured:
    """An operator of one step."""

    kind: str
    work: Work
    seconds: float


@dataclass(frozen=True, slots=True)
class Step:
    """A step with its operators."""

    operators: tuple[Measured, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Costs:
    """The cost model of a machine."""

    weights: dict[str, tuple[float, ...]]
    """Kind -> a weight for each field of `Terms`."""
    error: float
    """Median relative error of steps that it was not fitted to."""
    worst: float
    """That of the step in whose place nine of ten are better."""
    steps: int
    """That it was tested on."""
    cache_bytes: float = 0.0
    """Of the last-level cache: bytes in order that it holds wait for cores, not for memory."""

    def terms(
        self,
        kind: str,
        work: Work,
        ceilings: Ceilings,
        cache: tuple[float, float, float] = (1.0, 0.0, 0.0),
    ) -> Terms:
        """Return what an operator takes, by what it is spent on.

        Args:
            kind: Of the operator; one that was never measured counts as `layers`.
            work: What it has to do.
            ceilings: Of the machine.
            cache: A last-level cache of another size, see `Levels.scaled`.

        """
        weights = self.weights.get(kind) or self.weights["layers"]
        at_ceilings = astuple(limits(work, ceilings, passes=True, cache=cache))
        found = Terms(*(w * t for w, t in zip(weights, at_ceilings, strict=True)))
        near_s = found.stream_s * self.near(work, cache[0])
        return replace(found, compute_s=found.compute_s + near_s, stream_s=found.stream_s - near_s)

    def near(self, work: Work, factor: float = 1.0) -> float:
        """Return the share of its bytes in order that the last-level cache holds.

        Args:
            work: Of an operator.
            factor: Times the cache as it is.

        """
        moved = work.stream_bytes + work.passes_bytes
        return min(1.0, factor * self.cache_bytes / max(moved, 1.0))

    def cached_s(self, kind: str, work: Work, ceilings: Ceilings) -> float:
        """Return the seconds of such bytes, which `terms` counts as arithmetic."""
        weights = self.weights.get(kind) or self.weights["layers"]
        at = [field.name for field in fields(Terms)].index("stream_s")
        stream_s = limits(work, ceilings, passes=True).stream_s
        return weights[at] * stream_s * self.near(work)

    def to_dict(self) -> dict[str, Any]:
        """Return the model JSON-ready."""
        return {
            "weights": {kind: list(weights) for kind, weights in self.weights.items()},
            "error": self.error,
            "worst": self.worst,
            "steps": self.steps,
            "cache_bytes": self.cache_bytes,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Costs":
        """Return what `to_dict` was made of.

        Raises:
            KeyError, TypeError, ValueError: These are no such values.

        """
        weights = {
            str(kind): tuple(float(weight) for weight in each)
            for kind, each in dict(values["weights"]).items()
        }
        error, worst = float(values["error"]), float(values["worst"])
        return cls(weights, error, worst, int(values["steps"]), float(values["cache_bytes"]))


def fit(steps: Sequence[Step], ceilings: Ceilings, cache_bytes: float = 0.0) -> Costs:
    """Return the cost model of a machine, with its error on steps that are left out in turn.

    Args:
        steps: Measured there; at least `FOLDS`.
        ceilings: Measured there.
        cache_bytes: Of the last-level cache.

    """
    errors: list[float] = []
    for fold in range(FOLDS):
        rest = [step for i, step in enumerate(steps) if i % FOLDS != fold]
        costs = Costs(_weights(rest, ceilings), 0.0, 0.0, 0)
        errors += [
            abs(predicted(costs, step.operators, ceilings).total_s / step.seconds - 1)
            for step in steps[fold::FOLDS]
        ]
    tenth = float(np.quantile(errors, 0.9))
    weights = _weights(steps, ceilings)
    return Costs(weights, median(errors), tenth, len(steps), cache_bytes)


def predicted(costs: Costs, operators: Iterable[Measured], ceilings: Ceilings) -> Terms:
    """Return the sum of what operators take."""
    found = Terms()
    for each in operators:
        found = found + costs.terms(each.kind, each.work, ceilings)
    return found


def _weights(steps: Sequence[Step], ceilings: Ceilings) -> dict[str, tuple[float, ...]]:
    kinds: dict[str, list[Measured]] = {}
    for step in steps:
        for each in step.operators:
            kinds.setdefault(each.kind, []).append(each)
    return {kind: _of_kind(measured, ceilings) for kind, measured in kinds.items()}


def _of_kind(measured: Sequence[Measured], ceilings: Ceilings) -> tuple[float, ...]:
    kept = [each for each in measured if each.seconds > 0.0]
    if not kept:
        return (0.0,) * len(fields(Terms))
    seconds = np.array([each.seconds for each in kept])
    at_ceilings = [astuple(limits(each.work, ceilings, passes=True)) for each in kept]
    features = np.array(at_ceilings) / seconds[:, None]
    found, trust = np.zeros(features.shape[1]), np.ones(len(kept))
    for _ in range(ROUNDS):
        found = solve(features * trust[:, None], trust)
        # What is far off was measured while something else computed.
        trust = 1 / np.sqrt(1 + ((features @ found - 1) / FAR) ** 2)
    return tuple(map(float, found))
