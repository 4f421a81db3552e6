"""A whole step measured: its time, and how its operators share it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Any

import torch

from dlrm.batch import Batch
from dlrm.bench.clock import Clock
from dlrm.bench.cost.fit import Costs
from dlrm.bench.cost.predict import Predictor
from dlrm.bench.cost.verdict import Change, best, machines, more_threads, sentence
from dlrm.bench.cost.what_if import WhatIf
from dlrm.bench.profile import Operator, profile
from dlrm.bench.stages import Watched
from dlrm.bench.subject import Subject
from dlrm.bench.timer import Timing, interleave
from dlrm.bench.watch import Seen, Watch
from dlrm.nn import precision
from dlrm.planning.machine import Machine

ROUND_S = 0.25
"""Of a round of one candidate."""
MOST_STEPS = 200
LARGER = 4
"""Times the batch, that a larger one is predicted for."""


@dataclass(frozen=True, slots=True)
class StepMeasured:
    """A step at one batch size; the timing is of a step."""

    batch_size: int
    train: bool
    timing: Timing
    operators: list[Operator]
    predicted_s: float
    costs: Costs
    exponents: dict[str, float]
    software: list[Change]
    """Changes that a flag makes."""
    seen: Seen
    threads: int
    """Of torch."""
    cores: int
    """Of the machine."""

    def to_dict(self) -> dict[str, Any]:
        """Return the figures JSON-ready."""
        median = self.timing.median
        low, high = self.timing.interval
        roofline_s = sum(each.least_s for each in self.operators)
        row: dict[str, Any] = {
            "batch_size": self.batch_size,
            "rounds": len(self.timing.seconds),
            "step_ms": median * 1e3,
            "step_low": low * 1e3,
            "step_high": high * 1e3,
            "p95_ms": self.timing.percentile(95)[0] * 1e3,
            "samples_per_s": self.batch_size / median,
            "roofline_ms": roofline_s * 1e3,
            "roofline_share": roofline_s / median,
            "predicted_ms": self.predicted_s * 1e3,
            "model_error": self.costs.error,
            "model_steps": self.costs.steps,
            "operators": [each.to_dict(median) for each in self.operators],
            "exponents": self.exponents,
        }
        changes = best(
            [*self.software, *more_threads(row, self.threads, self.cores), *machines(row)]
        )
        row["changes"] = [change.to_dict() for change in changes]
        row["verdict"] = sentence(row, changes, self.costs.error)
        return {**row, **self.seen.to_dict()}

    def what_if(self, change: WhatIf) -> dict[str, Any]:
        """Return what a change would make of it, JSON-ready."""
        row = self.to_dict()
        ms = change.step_ms(row)
        return {
            "change": change.to_dict(),
            "step_ms": ms,
            "gain": row["step_ms"] / ms,
            "samples_per_s": self.batch_size / ms * 1e3,
            "model_error": self.costs.error,
            "error_here": abs(row["predicted_ms"] / row["step_ms"] - 1),
        }


def measure(
    subject: Subject,
    batch_sizes: list[int],
    machine: Machine,
    *,
    train: bool,
    rounds: int,
    tick: Callable[[], None],
) -> Iterator[StepMeasured]:
    """Yield the step at each batch size, with the same model.

    Args:
        subject: What is measured.
        batch_sizes: One after the other.
        machine: This one, with its cost model.
        train: Whether it is trained, or scores.
        rounds: Timed rounds.
        tick: Called after each round.

    Raises:
        ConfigError: It does not fit into memory, or the data have fewer rows than a batch.

    """
    for size in batch_sizes:
        subject.check(size, train=train)
    training = subject.build()
    model = training.net.train(train)
    watched = Watched(model, training if train else None)
    predictor = Predictor(machine, subject.config, subject.schema, model, train)
    run = watched.step if train else watched.score
    for size in batch_sizes:
        batches = subject.batches(size)
        steps = _steps(run, batches)
        clock = Clock()
        endless = cycle(batches)

        def plain(endless: Iterator[Batch] = endless, steps: int = steps) -> None:
            for _ in range(steps):
                run(next(endless))

        def clocked(
            endless: Iterator[Batch] = endless, steps: int = steps, clock: Clock = clock
        ) -> None:
            with watched.watching(clock):
                for _ in range(steps):
                    run(next(endless))
                    clock.lap()

        with Watch() as watch:
            timed = interleave(
                {"plain": plain, "clocked": clocked}, rounds=rounds, after_round=tick
            )
        timing = timed["plain"].per(steps)
        shape = subject.shape(size)
        yield StepMeasured(
            batch_size=size,
            train=train,
            timing=timing,
            operators=profile(predictor, shape, clock.medians, timing.median),
            predicted_s=predictor.step_s(predictor.parts(shape)),
            costs=predictor.costs,
            exponents=predictor.exponents(),
            software=_software(predictor, subject, size),
            seen=watch.seen,
            threads=torch.get_num_threads(),
            cores=machine.facts.cores,
        )


def _steps(run: Callable[[Batch], Any], batches: list[Batch]) -> int:
    """Return how many steps a round has."""
    run(batches[0])
    began = time.perf_counter()
    run(batches[1 % len(batches)])
    return max(2, min(MOST_STEPS, round(ROUND_S / (time.perf_counter() - began))))


def _software(predictor: Predictor, subject: Subject, size: int) -> list[Change]:
    """Return what flags would bring: what the model says then, over what it says now."""
    shape = subject.shape(size)
    now = predictor.step_s(predictor.parts(shape))
    other = predictor.other.total_s
    found = []
    if (
        precision.resolve(predictor.config.precision) == "fp32"
        and precision.resolve("auto") == "bf16"
    ):
        then = sum(predictor.with_precision(shape, "bf16")) + other
        found.append(Change("bf16 products in the MLPs", "--precision bf16", now / then))
    if predictor.config.model.tables.storage == "fp32":
        then = sum(predictor.with_rows(shape, "bf16")) + other
        how = "--model.tables.storage bf16" if predictor.train else "dlrm compress"
        found.append(Change("bf16 rows in the tables", how, now / then))
    if not predictor.train:
        then = sum(predictor.with_rows(shape, "int8")) + other
        found.append(Change("int8 rows in the tables", "dlrm compress", now / then))
    larger = replace(shape, batch_size=LARGER * size)
    then = predictor.step_s(predictor.parts(larger)) / LARGER
    how = "--loader.batch-size" if predictor.train else "--batch"
    found.append(Change(f"batches of {LARGER * size:,}", f"{how} {LARGER * size}", now / then))
    return found
