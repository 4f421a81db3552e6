"""What the fitted model of a machine says of a step: today, with other numbers, other batches."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING

from dlrm.nn import precision as precisions
from dlrm.nn.tables import tables_of
from dlrm.planning.costs import OTHER, Device, Terms, least
from dlrm.planning.machine import Machine
from dlrm.planning.parts import Part, parts
from dlrm.planning.what_if import CACHES
from dlrm.planning.work import NUMBER_BYTES, Shape, Work
from dlrm.schema import Schema

if TYPE_CHECKING:
    from dlrm.training.config import TrainConfig

SCALE_BYTES = {"int8": 8, "int4": 4}
"""Bytes of scale and bias of a row of codes."""
ABOVE, BELOW = 2.5, 4.0
"""Levels of the gather curve belong to the last-level cache from where the caches before it end,
times the first, to its own size, times the second."""
CACHE_BYTES = 32 * 2**20
"""Size of the last-level cache where nobody tells."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """A run on a machine whose cost model is known; `train` says whether it trains, or scores."""

    machine: Machine
    config: "TrainConfig"
    schema: Schema
    train: bool

    @property
    def device(self) -> Device:
        """The machine, as what predicts."""
        return self.machine.device

    def parts(
        self, shape: Shape, *, precision: str | None = None, number_bytes: float | None = None
    ) -> list[Part]:
        """Return the parts of a step on such batches, see `dlrm.planning.parts.parts`."""
        return parts(
            self.config,
            self.schema,
            shape,
            train=self.train,
            precision=None if precision is None else precisions.resolve(precision),
            number_bytes=number_bytes,
        )

    def terms(self, part: Part) -> Terms:
        """Return what a part takes."""
        return self.device.terms(part.kind, part.work)

    def least_s(self, part: Part) -> float:
        """Return the least seconds that it takes at the machine's ceilings."""
        cache = self.machine.facts.last_level
        size = cache.size_bytes if cache else CACHE_BYTES
        return least(part.work, self.machine.ceilings, size, near=True)[0]

    @property
    def other(self) -> Terms:
        """Time of a training step that belongs to no part."""
        return self.device.terms(OTHER, Work(calls=1)) if self.train else Terms()

    def step_s(self, parts: Sequence[Part]) -> float:
        """Return the seconds of a step of these parts."""
        return sum((self.terms(part) for part in parts), self.other).total_s

    def with_precision(self, shape: Shape, to: str) -> list[float]:
        """Return the seconds of each part with products of another type.

        Those of 8 bits are taken to stay as far from their ceiling as those of bfloat16 do.
        """
        ceilings = self.machine.ceilings
        seconds = []
        for part in self.parts(shape, precision="fp32" if to == "fp32" else "bf16"):
            terms = self.terms(part)
            if to == "int8" and part.work.products:
                peaks = [ceilings.flops[name][ceilings.threads] for name in ("bf16", to)]
                terms = replace(terms, compute_s=terms.compute_s * peaks[0] / peaks[1])
            seconds.append(terms.total_s)
        return seconds

    def precisions(self) -> list[str]:
        """Return the types of products that this machine has and the model could use."""
        now, there = precisions.resolve(self.config.precision), self.machine.ceilings.flops
        return [name for name in ("bf16", "int8") if name != now and name in there]

    def with_rows(self, shape: Shape, to: str) -> list[float]:
        """Return the seconds of each part with tables of other numbers."""
        dim = getattr(self.config.model, "dim", 16)
        number_bytes = NUMBER_BYTES[to] + SCALE_BYTES.get(to, 0) / dim
        return [self.terms(part).total_s for part in self.parts(shape, number_bytes=number_bytes)]

    def rows(self) -> list[str]:
        """Return the numbers that tables could be of."""
        now = tables_of(self.config.model).storage
        return [name for name in ("bf16", "int8", "int4") if name != now]

    def with_caches(self, parts: Sequence[Part]) -> list[list[float]]:
        """Return factors of the last-level cache, and what they make of the waiting of parts."""
        caches = self.machine.facts.caches
        if len(caches) < 2 or not _waiting(self.terms(part) for part in parts):
            return [[1.0, 1.0]]
        above, below = ABOVE * caches[-2].total_bytes, BELOW * caches[-1].total_bytes

        def then(factor: float) -> float:
            cache = (factor, above, below)
            return _waiting(self.device.terms(part.kind, part.work, cache) for part in parts)

        return [[factor, then(factor) / then(1.0)] for factor in CACHES]

    def exponents(self) -> dict[str, float]:
        """Return by which power of the cores each rate grew on this machine."""
        ceilings = self.machine.ceilings
        rates = {
            "compute": ceilings.flops["fp32"],
            "stream": ceilings.copy,
            "latency": ceilings.gather_by_threads,
        }
        return {name: exponent(rate) for name, rate in rates.items()}


def _waiting(terms: Iterable[Terms]) -> float:
    return sum(term.latency_s + term.transfer_s for term in terms)


def exponent(rates: Mapping[int, float]) -> float:
    """Return e where a rate grows as threads^e, from the fewest threads to the most; 1 if unknown.

    Noise must not make it fall, nor grow faster than the cores do.
    """
    few, many = min(rates, default=1), max(rates, default=1)
    if few == many:
        return 1.0
    return min(1.0, max(0.0, log(rates[many] / rates[few]) / log(many / few)))
