"""Where the time of a step goes, operator by operator, beside what limits and model say."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dlrm.bench.cost.fit import OTHER
from dlrm.bench.cost.operator_work import Shape
from dlrm.bench.cost.operators import Part
from dlrm.bench.cost.predict import Predictor
from dlrm.bench.cost.work import Terms, Work
from dlrm.bench.stages import FORWARD


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a step, both ways."""

    name: str
    forward_s: float
    backward_s: float
    work: Work
    least_s: float
    """At the machine's ceilings, see `dlrm.bench.cost.least`."""
    predicted: Terms
    """By the fitted model."""
    cached_s: float
    """What of the predicted arithmetic is passing over bytes that the caches hold."""
    cache: list[list[float]]
    precision: dict[str, float]
    rows: dict[str, float]
    """See `dlrm.bench.cost.what_if`."""

    @property
    def seconds(self) -> float:
        """Forwards and backwards."""
        return self.forward_s + self.backward_s

    @property
    def terms(self) -> Terms:
        """The measured time, split as the model splits it."""
        if not self.predicted.total_s:
            return Terms(calls_s=self.seconds)
        return self.predicted.times(self.seconds / self.predicted.total_s)

    @property
    def bound(self) -> str:
        """What holds it up: as `Terms.bound` says, or cache bandwidth."""
        found = self.predicted
        if found.bound == "compute" and self.cached_s > found.compute_s / 2:
            return "cache bandwidth"
        return found.bound

    def to_dict(self, step_s: float) -> dict[str, Any]:
        """Return it JSON-ready."""
        seconds, work = self.seconds, self.work
        known = seconds > 0
        terms = asdict(self.terms)
        return {
            "name": self.name,
            "forward_ms": self.forward_s * 1e3,
            "backward_ms": self.backward_s * 1e3,
            "ms": seconds * 1e3,
            "share": seconds / step_s,
            "flops": work.flops,
            "bytes": work.bytes,
            "lines": work.lines,
            "intensity": work.intensity,
            "gflops_per_s": work.flops / seconds / 1e9 if known else None,
            "gb_per_s": work.bytes / seconds / 1e9 if known else None,
            "roofline_ms": self.least_s * 1e3,
            "roofline_share": self.least_s / seconds if known else None,
            "bound": self.bound,
            "predicted_ms": self.predicted.total_s * 1e3,
            "terms": {f"{name.removesuffix('_s')}_ms": each * 1e3 for name, each in terms.items()},
            "cache": self.cache,
            "precision": self.precision,
            "rows": self.rows,
        }


def profile(
    predictor: Predictor, shape: Shape, seconds: Mapping[tuple[str, str], float], step_s: float
) -> list[Operator]:
    """Return the operators of a step in the order in which they run, and what is left beside them.

    Args:
        predictor: Of the model on this machine.
        shape: Of the batches.
        seconds: Measured, of each stage.
        step_s: Of the whole step, unwatched.

    """
    parts = predictor.parts(shape)
    took = [sum(seconds.get(stage, 0.0) for stage in part.stages) for part in parts]
    # Watching takes a little itself.
    within = min(1.0, step_s / sum(took)) if sum(took) else 1.0
    today = [predictor.terms(part).total_s for part in parts]
    precisions = {to: predictor.with_precision(shape, to) for to in predictor.precisions()}
    rows = {to: predictor.with_rows(shape, to) for to in predictor.rows()}
    found = []
    for name in dict.fromkeys(part.operator for part in parts):
        mine = [i for i, part in enumerate(parts) if part.operator == name]

        def ratios(
            changed: Mapping[str, Sequence[float]], mine: list[int] = mine
        ) -> dict[str, float]:
            before = sum(today[i] for i in mine)
            if not before:
                return {}
            return {to: sum(each[i] for i in mine) / before for to, each in changed.items()}

        forward = sum(took[i] for i in mine if parts[i].phase == FORWARD)
        found.append(
            Operator(
                name,
                within * forward,
                within * (sum(took[i] for i in mine) - forward),
                sum((parts[i].work for i in mine), Work(calls=0)),
                sum(predictor.least_s(parts[i]) for i in mine),
                sum((predictor.terms(parts[i]) for i in mine), Terms()),
                sum(predictor.cached_s(parts[i]) for i in mine),
                _cache(predictor, [parts[i] for i in mine]),
                ratios(precisions),
                ratios(rows),
            )
        )
    rest = max(0.0, step_s - sum(each.seconds for each in found))
    other = predictor.other
    found.append(Operator(OTHER, 0.0, rest, Work(calls=1), 0.0, other, 0.0, [[1.0, 1.0]], {}, {}))
    return found


def _cache(predictor: Predictor, parts: Sequence[Part]) -> list[list[float]]:
    """Return what caches of other sizes make of the waiting of several parts together."""
    waits = [t.latency_s + t.transfer_s for t in map(predictor.terms, parts)]
    curves = [predictor.with_cache(part) for part in parts]
    if not sum(waits):
        return [[1.0, 1.0]]
    longest = max(curves, key=len)
    found = []
    for at, (factor, _) in enumerate(longest):
        then = sum(
            wait * (curve[at][1] if len(curve) == len(longest) else 1.0)
            for wait, curve in zip(waits, curves, strict=True)
        )
        found.append([factor, then / sum(waits)])
    return found
