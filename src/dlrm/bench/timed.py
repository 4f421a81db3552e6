"""Candidates timed beside each other, each on inputs that rotate and on one.

python -m dlrm.bench.timed        as one of the processes that an operator takes
"""

import json
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dlrm.bench.operator import Case, Operator, Setting, Stock
from dlrm.bench.operators import OPERATORS
from dlrm.bench.processes import answers
from dlrm.bench.timer import Timing, in_turn, interleave, steps_of
from dlrm.errors import ConfigError
from dlrm.ops.memory import keep_freed_memory
from dlrm.parallel.world import World

ROUND_S = 0.02
"""Seconds of a candidate in a round, at least."""
MOST_STEPS = 2000
"""Most steps of a round."""

Tick = Callable[[int], object]
"""Told how many candidates have come a round further; being ready counts as one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An operator on a setting."""

    operator: Operator
    setting: Setting

    @property
    def tables(self) -> tuple[object, ...]:
        """Equal for candidates that can share tables: bytes of the tables, then their settings."""
        setting = self.setting
        size = self.operator.work(setting).tables_bytes
        return size, setting.tables, setting.rows, setting.dim, setting.storage, setting.optim


@dataclass(frozen=True, slots=True)
class Outcome:
    """Timings of a candidate per batch, or the reason why there are none."""

    candidate: Candidate
    cold: Timing | None = None
    """Time on inputs that rotate past the last-level cache."""
    warm: Timing | None = None
    """Time on one input again and again."""
    error: str | None = None
    """Why there are no timings."""


def measure(every: Sequence[Candidate], stock: Stock, rounds: int, tick: Tick) -> list[Outcome]:
    """Time candidates of one operator round by round.

    What one of them raises is kept as its outcome, and the others go on; in a world of several
    processes it is raised, because the others would wait for it.
    """
    alone = stock.world.size == 1
    failed: dict[int, str] = {}

    def guarded(number: int, run: Callable[[], Any]) -> Callable[[], None]:
        def safely() -> None:
            if number in failed:
                return
            try:
                run()
            except Exception as error:  # whatever it is, the rest goes on
                if not alone:
                    raise
                failed[number] = reason(error)

        return safely

    runs: dict[str, Callable[[], None]] = {}
    before: dict[str, Callable[[], None]] = {}
    worked: dict[str, int] = {}
    threads = torch.get_num_threads()
    several = len({candidate.setting.threads for candidate in every}) > 1

    def prepare(number: int, candidate: Candidate) -> None:
        _use_threads(candidate, stock)
        case = candidate.operator.build(candidate.setting, stock)
        steps = stock.world.broadcast_object(steps_of(case.run, case.inputs, ROUND_S, MOST_STEPS))
        again = case.again or case.inputs[:1]
        for name, run, inputs, batches in (
            (f"{number} cold", _keeping(case), case.inputs, case.batches),
            (f"{number} warm", case.run, again, case.again_batches if case.again else case.batches),
        ):
            runs[name] = guarded(number, in_turn(run, inputs, steps))
            worked[name] = steps * batches
            # One run not timed: of the warm one, because the others have emptied the cache, and
            # of all where a team of other threads has just worked.
            first = in_turn(run, inputs, 1) if several or "warm" in name else None
            before[name] = guarded(number, _before(candidate, stock, first))

    try:
        for number, candidate in enumerate(every):
            guarded(number, lambda number=number, candidate=candidate: prepare(number, candidate))()
            tick(1)
        timed = {}
        if runs:
            timed = interleave(
                runs, rounds=rounds, before=before, after_round=lambda: tick(len(every))
            )
    finally:
        torch.set_num_threads(threads)
    outcomes = []
    for number, candidate in enumerate(every):
        if number in failed:
            outcomes.append(Outcome(candidate, error=failed[number]))
            continue
        cold, warm = (
            timed[name].per(worked[name]) for name in (f"{number} cold", f"{number} warm")
        )
        outcomes.append(Outcome(candidate, cold, warm))
    return outcomes


def _keeping(case: Case) -> Callable[[Any], None]:
    """Return what runs, and keeps as many results as there are inputs."""
    results: deque[object] = deque(maxlen=len(case.inputs))
    return lambda given: results.append(case.run(given))


def reason(error: BaseException) -> str:
    """Return an error as one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _before(
    candidate: Candidate, stock: Stock, first: Callable[[], None] | None
) -> Callable[[], None]:
    def ready() -> None:
        _use_threads(candidate, stock)
        if first is not None:
            first()
        if stock.world.size > 1:
            stock.world.barrier()

    return ready


def _use_threads(candidate: Candidate, stock: Stock) -> None:
    """Let torch use the threads of a setting; processes share them."""
    threads = max(1, candidate.setting.threads // stock.world.size)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def measure_apart(every: Sequence[Candidate], rounds: int, tick: Tick) -> list[Outcome]:
    """Time candidates in fresh processes, as `measure`; the first one's figures count.

    Where these end before their time, each candidate gets processes of its own, so that one that
    fails does not take the others with it.
    """
    listed = [[candidate.operator.name, asdict(candidate.setting)] for candidate in every]
    task = {"rounds": rounds, "candidates": listed}
    words = ["-m", "dlrm.bench.timed"]
    try:
        heard = answers(words, every[0].operator.processes, task)[0]
    except ConfigError as error:
        if len(every) > 1:
            return [measure_apart([candidate], rounds, tick)[0] for candidate in every]
        tick(rounds + 1)
        return [Outcome(every[0], error=str(error))]
    tick(len(every) * (rounds + 1))
    return [
        Outcome(candidate, Timing("cold", cold), Timing("warm", warm))
        for candidate, (cold, warm) in zip(every, heard, strict=True)
    ]


def main() -> None:
    """Be one process."""
    task = json.loads(sys.stdin.read())
    keep_freed_memory()
    every = [
        Candidate(OPERATORS[name], Setting(**{**setting, "widths": tuple(setting["widths"])}))
        for name, setting in task["candidates"]
    ]
    with World.from_environment("gloo") as world, Stock(world) as stock:
        outcomes = measure(every, stock, task["rounds"], lambda count: None)
        if world.first:
            timed = [
                (outcome.cold, outcome.warm)
                for outcome in outcomes
                if outcome.cold and outcome.warm
            ]
            print(json.dumps([(c.seconds, w.seconds) for c, w in timed]), flush=True)


if __name__ == "__main__":
    main()
