"""A whole step measured: its time, how its operators share it, and what limits and model say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dlrm.batch import Batch
from dlrm.bench.subject import Subject
from dlrm.bench.timer import Timing, in_turn, interleave, steps_of
from dlrm.bench.watch import Seen, Watch
from dlrm.nn import precision
from dlrm.nn.tables import tables_of
from dlrm.planning.costs import OTHER, Terms
from dlrm.planning.machine import Machine
from dlrm.planning.predict import Predictor
from dlrm.planning.stages import FORWARD, Clock, Watched
from dlrm.planning.what_if import Change, best, machines, more_threads, verdict
from dlrm.planning.work import NOTHING, Shape, Work

ROUND_S = 0.25
"""Seconds of a round of one candidate."""
MOST_STEPS = 200
LARGER = 4
"""Times the batch, that a larger one is predicted for."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator of a step, both ways."""

    name: str
    forward_s: float
    backward_s: float
    work: Work
    least_s: float
    """At the machine's ceilings, see `dlrm.planning.costs.least`."""
    predicted: Terms
    """Seconds that the fitted model predicts."""
    cached_s: float
    """What of the predicted arithmetic is passing over bytes that the caches hold."""
    cache: list[list[float]]
    precision: dict[str, float]
    rows: dict[str, float]
    """See `dlrm.planning.what_if`."""

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
        bound = self.predicted.bound
        if bound == "compute" and self.cached_s > self.predicted.compute_s / 2:
            return "cache bandwidth"
        return bound

    def to_dict(self, step_s: float) -> dict[str, Any]:
        """Return it JSON-ready."""
        seconds, work = self.seconds, self.work
        known = seconds > 0
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
            "terms": {
                name.replace("_s", "_ms"): term_s * 1e3
                for name, term_s in asdict(self.terms).items()
            },
            "cache": self.cache,
            "precision": self.precision,
            "rows": self.rows,
        }


def measure(
    subject: Subject,
    batch_sizes: list[int],
    machine: Machine,
    *,
    train: bool,
    rounds: int,
    tick: Callable[[], None],
) -> Iterator[tuple[dict[str, Any], Seen]]:
    """Yield the figures of a step at each batch size, with the same model, trained or scoring.

    Beside them stands what else the machine did meanwhile.

    Raises:
        ConfigError: It does not fit into memory, or the data have fewer rows than a batch.

    """
    for size in batch_sizes:
        subject.check(size, train=train)
    training = subject.build()
    training.net.train(train)
    watched = Watched(training.net, training if train else None)
    predictor = Predictor(machine, subject.config, subject.schema, train)
    run = watched.step if train else watched.score
    for size in batch_sizes:
        batches = subject.batches(size)
        steps = steps_of(run, batches, ROUND_S, MOST_STEPS, least=2)
        clock = Clock()

        def lapped(batch: Batch, clock: Clock = clock) -> None:
            run(batch)
            clock.lap()

        plain, clocked = (in_turn(act, batches, steps) for act in (run, lapped))

        def watching(clock: Clock = clock, clocked: Callable[[], None] = clocked) -> None:
            with watched.watching(clock):
                clocked()

        with Watch() as watch:
            timed = interleave(
                {"plain": plain, "clocked": watching}, rounds=rounds, after_round=tick
            )
        timing, shape = timed["plain"].per(steps), subject.shape(size)
        operators = profile(predictor, shape, clock.medians, timing.median)
        row = _figures(predictor, shape, timing, operators)
        threads = more_threads(row, watch.seen.threads, machine.facts.cores)
        changes = best([*_software(predictor, shape), *threads, *machines(row)])
        row["changes"] = [asdict(change) for change in changes]
        row["verdict"] = verdict(row, changes, row["model_error"])
        yield {**row, **watch.seen.to_dict()}, watch.seen


def _figures(
    predictor: Predictor, shape: Shape, timing: Timing, operators: Sequence[Operator]
) -> dict[str, Any]:
    costs, median = predictor.device.costs, timing.median
    low, high = timing.interval
    roofline_s = sum(operator.least_s for operator in operators)
    return {
        "batch_size": int(shape.batch_size),
        "rounds": len(timing.seconds),
        "step_ms": median * 1e3,
        "step_low": low * 1e3,
        "step_high": high * 1e3,
        "p95_ms": timing.percentile(95)[0] * 1e3,
        "samples_per_s": shape.batch_size / median,
        "roofline_ms": roofline_s * 1e3,
        "roofline_share": roofline_s / median,
        "predicted_ms": predictor.step_s(predictor.parts(shape)) * 1e3,
        "model_error": costs.error,
        "model_steps": costs.steps,
        "operators": [operator.to_dict(median) for operator in operators],
        "exponents": predictor.exponents(),
    }


def profile(
    predictor: Predictor, shape: Shape, seconds: Mapping[tuple[str, str], float], step_s: float
) -> list[Operator]:
    """Return the operators of a step in the order in which they run, and what is left beside them.

    `seconds` were measured of each stage, `step_s` of the whole step, unwatched.
    """
    parts = predictor.parts(shape)
    took = [sum(seconds.get(stage, 0.0) for stage in part.stages) for part in parts]
    # Watching takes a little itself.
    within = min(1.0, step_s / sum(took)) if sum(took) else 1.0
    today = [predictor.terms(part) for part in parts]
    precisions = {to: predictor.with_precision(shape, to) for to in predictor.precisions()}
    rows = {to: predictor.with_rows(shape, to) for to in predictor.rows()}
    operators = []
    for name in dict.fromkeys(part.operator for part in parts):
        indices = [i for i, part in enumerate(parts) if part.operator == name]
        predicted = sum((today[i] for i in indices), Terms())

        def ratios(
            changed: Mapping[str, Sequence[float]],
            indices: list[int] = indices,
            before: float = predicted.total_s,
        ) -> dict[str, float]:
            return {
                to: sum(then[i] for i in indices) / before for to, then in changed.items() if before
            }

        forward = sum(took[i] for i in indices if parts[i].phase == FORWARD)
        operators.append(
            Operator(
                name,
                within * forward,
                within * (sum(took[i] for i in indices) - forward),
                sum((parts[i].work for i in indices), NOTHING),
                sum(predictor.least_s(parts[i]) for i in indices),
                predicted,
                sum(predictor.device.cached_s(parts[i].kind, parts[i].work) for i in indices),
                predictor.with_caches([parts[i] for i in indices]),
                ratios(precisions),
                ratios(rows),
            )
        )
    rest = max(0.0, step_s - sum(operator.seconds for operator in operators))
    one = Work(calls=1)
    return [
        *operators,
        Operator(OTHER, 0.0, rest, one, 0.0, predictor.other, 0.0, [[1.0, 1.0]], {}, {}),
    ]


def _software(predictor: Predictor, shape: Shape) -> list[Change]:
    """Return what flags would bring: what the model says then, over what it says now."""
    config, train = predictor.config, predictor.train
    now, other = predictor.step_s(predictor.parts(shape)), predictor.other.total_s
    resolved = (precision.resolve(config.precision), precision.resolve("auto"))
    changes = []
    if resolved == ("fp32", "bf16"):
        then = sum(predictor.with_precision(shape, "bf16")) + other
        changes.append(Change("bf16 products in the MLPs", "--precision bf16", now / then))
    if tables_of(config.model).storage == "fp32":
        then = sum(predictor.with_rows(shape, "bf16")) + other
        how = "--model.tables.storage bf16" if train else "dlrm compress"
        changes.append(Change("bf16 rows in the tables", how, now / then))
    if not train:
        then = sum(predictor.with_rows(shape, "int8")) + other
        changes.append(Change("int8 rows in the tables", "dlrm compress", now / then))
    size = LARGER * int(shape.batch_size)
    then = predictor.step_s(predictor.parts(replace(shape, batch_size=size))) / LARGER
    how = "--loader.batch-size" if train else "--batch"
    changes.append(Change(f"batches of {size:,}", f"{how} {size}", now / then))
    return changes
