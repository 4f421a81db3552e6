"""The cost model of a machine, fitted to operators of steps that were measured there."""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from statistics import median

import numpy as np

from dlrm.planning.ceilings import Ceilings
from dlrm.planning.costs import ONES, Costs, Device, Terms, limits
from dlrm.planning.nonnegative import solve
from dlrm.planning.work import Work

FOLDS = 5
ROUNDS = 6
FAR = 0.3
"""Relative error from which on a measurement counts less and less (Cauchy's loss)."""


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


def fit(steps: Sequence[Step], ceilings: Ceilings, cache_bytes: float = 0.0) -> Costs:
    """Return the cost model of a machine, with its error on steps that are left out in turn.

    Weights are at least 0 and have the least squared relative error over the measured operators, of
    which those that are far off count less. It takes at least `FOLDS` steps.
    """
    errors: list[float] = []
    for fold in range(FOLDS):
        rest = [step for i, step in enumerate(steps) if i % FOLDS != fold]
        device = Device(ceilings, Costs(_weights(rest, ceilings), steps=len(rest)))
        errors += [
            abs(predicted(device, step.operators).total_s / step.seconds - 1)
            for step in steps[fold::FOLDS]
        ]
    tenth = float(np.quantile(errors, 0.9))
    return Costs(_weights(steps, ceilings), median(errors), tenth, len(steps), cache_bytes)


def predicted(device: Device, operators: Iterable[Measured]) -> Terms:
    """Return the sum of what operators take."""
    return sum((device.terms(operator.kind, operator.work) for operator in operators), Terms())


def _weights(steps: Sequence[Step], ceilings: Ceilings) -> dict[str, tuple[float, ...]]:
    kinds: dict[str, list[Measured]] = {}
    for step in steps:
        for operator in step.operators:
            kinds.setdefault(operator.kind, []).append(operator)
    return {kind: _of_kind(measured, ceilings) for kind, measured in kinds.items()}


def _of_kind(measured: Sequence[Measured], ceilings: Ceilings) -> tuple[float, ...]:
    timed = [operator for operator in measured if operator.seconds > 0.0]
    if not timed:
        return (0.0,) * len(ONES)
    at_ceilings = [astuple(limits(part.work, ceilings, passes=True)) for part in timed]
    features = np.array(at_ceilings) / np.array([[operator.seconds] for operator in timed])
    weights, trust = np.zeros(features.shape[1]), np.ones(len(timed))
    for _ in range(ROUNDS):
        weights = solve(features * trust[:, None], trust)
        # What is far off was measured while something else computed.
        trust = 1 / np.sqrt(1 + ((features @ weights - 1) / FAR) ** 2)
    return tuple(map(float, weights))
