"""How several models compare, each with several seeds; of several labels by the first."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from statistics import fmean, median, stdev
from typing import Any

from dlrm.metrics import HIGHER_IS_BETTER, NAMES
from dlrm.schema import Task
from dlrm.training.significance import LEVEL, can_tell, chance_of_difference

TREES = "trees"


@dataclass(frozen=True, kw_only=True, slots=True)
class Seed:
    """One run of a model."""

    seed: int
    metrics: dict[str, Any]
    elapsed_s: float | None = None
    samples_per_s: float | None = None
    run: str | None = None
    """Run directory; None for trees."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A model and its runs."""

    name: str
    lr: float | None
    parameters: int | None
    """Numbers that are trained; None for trees."""
    seeds: tuple[Seed, ...]

    def values(self, metric: str) -> list[float]:
        """Return a metric over the seeds, without those where it is undefined."""
        known = (seed.metrics.get(metric) for seed in self.seeds)
        return [value for value in known if value is not None]

    @property
    def samples_per_s(self) -> float | None:
        """Return how fast it trained, the median over the seeds; None for trees."""
        known = [seed.samples_per_s for seed in self.seeds if seed.samples_per_s is not None]
        return median(known) if known else None

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric over the seeds."""
        values = self.values(metric)
        return fmean(values) if values else None

    def spread(self, metric: str) -> float | None:
        """Return the standard deviation over the seeds; None for fewer than two."""
        values = self.values(metric)
        return stdev(values) if len(values) > 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Several models on the same rows."""

    data: str
    split: str
    """Whose rows the metrics are of."""
    metric: str
    """Name of the metric that the best is the best in."""
    task: Task = "classification"
    """The kind of the labels."""
    candidates: tuple[Candidate, ...]
    """Candidates, the best mean first, which luck may have put there: see `winner`."""
    optimum: dict[str, Any] | None
    """The metrics of the truth, where it is known."""

    @property
    def best(self) -> Candidate:
        """The candidate of the best mean."""
        return self.candidates[0]

    def candidate(self, name: str) -> Candidate:
        """Return the candidate of that name."""
        return next(candidate for candidate in self.candidates if candidate.name == name)

    def chance(self, one: Candidate, other: Candidate, metric: str | None = None) -> float | None:
        """Return how often seeds alone make two candidates differ so; None for too few seeds."""
        first, second = (side.values(metric or self.metric) for side in (one, other))
        if not can_tell(len(first), len(second)):
            return None
        return chance_of_difference(first, second)

    @property
    def winner(self) -> Candidate | None:
        """The best candidate, if it differs from every other by more than the noise of seeds."""
        chances = [self.chance(self.best, other) for other in self.candidates[1:]]
        clear = [chance is not None and chance < LEVEL for chance in chances]
        return self.best if clear and all(clear) else None

    def to_dict(self) -> dict[str, Any]:
        """Return this comparison JSON-ready."""
        rows = []
        for candidate in self.candidates:
            row: dict[str, Any] = {
                "model": candidate.name,
                "lr": candidate.lr,
                "parameters": candidate.parameters,
            }
            for metric in NAMES[self.task]:
                row[metric], row[f"{metric}_std"] = candidate.mean(metric), candidate.spread(metric)
            chance = None if candidate is self.best else self.chance(self.best, candidate)
            row["p_value"] = chance
            row["differs"] = None if chance is None else chance < LEVEL
            row["samples_per_s"] = candidate.samples_per_s
            row["seeds"] = [asdict(seed) for seed in candidate.seeds]
            rows.append(row)
        head: dict[str, Any] = {"data": self.data, "split": self.split, "metric": self.metric}
        head["winner"] = self.winner.name if self.winner else None
        return {**head, "models": rows, "optimum": self.optimum}


def ordered(
    data: str,
    split: str,
    metric: str,
    candidates: Sequence[Candidate],
    optimum: dict[str, Any] | None,
    task: Task = "classification",
) -> Comparison:
    """Return the comparison with the best candidate first."""
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0

    def rank(candidate: Candidate) -> float:
        mean = candidate.mean(metric)
        return inf if mean is None else sign * mean

    return Comparison(
        data=data,
        split=split,
        metric=metric,
        task=task,
        candidates=tuple(sorted(candidates, key=rank)),
        optimum=optimum,
    )
