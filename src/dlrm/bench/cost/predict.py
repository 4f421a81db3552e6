"""What the fitted model of a machine says of a step: today, with other numbers, other batches."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log
from typing import Any

import torch
from torch import nn

from dlrm.bench.cost.fit import OTHER, Costs
from dlrm.bench.cost.least import least
from dlrm.bench.cost.operator_work import Shape
from dlrm.bench.cost.operators import Part, parts
from dlrm.bench.cost.step_work import Assumed, works
from dlrm.bench.cost.what_if import CACHES
from dlrm.bench.cost.work import Terms, Work
from dlrm.nn import precision as precisions
from dlrm.nn.precision import ComputeDtype
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.machine import Machine
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig

NUMBER_BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5}
"""Of a number in a row."""
SCALE_BYTES = {"int8": 8, "int4": 4}
"""Of the scale and bias of a row of codes."""
ABOVE, BELOW = 2.5, 4.0
"""Levels of the gather curve belong to the last-level cache from where the caches before it end,
times the first, to its own size, times the second."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """A model on a machine whose cost model is known.

    Args:
        machine: With its costs.
        config: Of the run: model, precision, optimizer.
        schema: Of its data.
        model: As it is measured.
        train: Whether it is trained, or scores.

    """

    machine: Machine
    config: TrainConfig
    schema: Schema
    model: nn.Module
    train: bool

    @property
    def costs(self) -> Costs:
        """The fitted model."""
        return Costs.from_dict(self.machine.costs or {})

    @property
    def ceilings(self) -> Ceilings:
        """Of the machine."""
        return self.machine.ceilings

    def parts(self, shape: Shape, assumed: Assumed = Assumed()) -> list[Part]:  # noqa: B008
        """Return the parts of a step on such batches."""
        optimizer = self.config.optim.name if self.train else None
        with torch.device("meta"):
            ghost = self.config.model.build(
                self.schema, assumed.precision or precisions.resolve(self.config.precision)
            )
        found = works(self.model, ghost, self.schema, shape, optimizer, assumed)
        return parts(self.model, found, optimizer, assumed)

    def terms(self, part: Part) -> Terms:
        """Return what a part takes."""
        return self.costs.terms(part.kind, part.work, self.ceilings)

    def cached_s(self, part: Part) -> float:
        """Return what of its arithmetic is passing over bytes that the caches hold."""
        return self.costs.cached_s(part.kind, part.work, self.ceilings)

    def least_s(self, part: Part) -> float:
        """Return the least seconds that it takes."""
        return least(part.work, self.ceilings, near=True)[0]

    @property
    def other(self) -> Terms:
        """What a step takes beside its parts."""
        if not self.train:
            return Terms()
        return self.costs.terms(OTHER, Work(calls=1), self.ceilings)

    def step_s(self, of: Sequence[Part]) -> float:
        """Return the seconds of a step of these parts."""
        return sum((self.terms(part) for part in of), self.other).total_s

    def with_precision(self, shape: Shape, to: str) -> list[float]:
        """Return the seconds of each part with products of another type.

        Those of 8 bits are taken to stay as far from their ceiling as those of bfloat16 do.
        """
        precision: ComputeDtype = "fp32" if to == "fp32" else "bf16"
        seconds = []
        for part in self.parts(shape, Assumed(precision=precision)):
            terms = self.terms(part)
            if to == "int8" and part.work.products:
                peaks = [self.ceilings.flops[name][self.ceilings.threads] for name in ("bf16", to)]
                terms = replace(terms, compute_s=terms.compute_s * peaks[0] / peaks[1])
            seconds.append(terms.total_s)
        return seconds

    def precisions(self) -> list[str]:
        """Return the types of products that this machine has and the model could use."""
        now = precisions.resolve(self.config.precision)
        return [name for name in ("bf16", "int8") if name != now and name in self.ceilings.flops]

    def with_rows(self, shape: Shape, to: str) -> list[float]:
        """Return the seconds of each part with tables of other numbers."""
        dim = getattr(self.config.model, "dim", 16)
        number_bytes = NUMBER_BYTES[to] + SCALE_BYTES.get(to, 0) / dim
        return [self.terms(each).total_s for each in self.parts(shape, Assumed(number_bytes))]

    def rows(self) -> list[str]:
        """Return the numbers that tables could be of."""
        now = self.config.model.tables.storage
        return [name for name in ("bf16", "int8", "int4") if name != now]

    def with_cache(self, part: Part) -> list[list[float]]:
        """Return factors of the last-level cache, and what they make of waiting and transfer."""
        today = self.terms(part)
        waiting = today.latency_s + today.transfer_s
        caches = self.machine.facts.caches
        if not waiting or len(caches) < 2:
            return [[1.0, 1.0]]
        above = ABOVE * caches[-2].total_bytes
        below = BELOW * caches[-1].total_bytes
        found = []
        for factor in CACHES:
            then = self.costs.terms(part.kind, part.work, self.ceilings, (factor, above, below))
            found.append([factor, (then.latency_s + then.transfer_s) / waiting])
        return found

    def exponents(self) -> dict[str, float]:
        """Return by which power of the cores each rate grew on this machine."""
        of = self.ceilings
        rates = {
            "compute": of.flops["fp32"],
            "stream": of.copy,
            "latency": of.gather_by_threads,
        }
        return {name: exponent(rate) for name, rate in rates.items()}


def exponent(rates: dict[int, float]) -> float:
    """Return e where a rate grows as threads^e, from the fewest threads to the most; 1 if unknown.

    Noise must not make it fall, nor grow faster than the cores do.
    """
    few, many = min(rates, default=1), max(rates, default=1)
    if few == many:
        return 1.0
    return min(1.0, max(0.0, log(rates[many] / rates[few]) / log(many / few)))


def error(machine: Machine) -> dict[str, Any]:
    """Return how far off the model is, for whoever shows a prediction."""
    costs = Costs.from_dict(machine.costs or {})
    return {
        "model_error": costs.error,
        "model_error_worst": costs.worst,
        "model_steps": costs.steps,
    }
