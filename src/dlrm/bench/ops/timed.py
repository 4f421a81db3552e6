"""Candidates timed beside each other in this process, each on inputs that rotate and on one."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dlrm.bench.ops.operator import Case, Operator, Stock
from dlrm.bench.ops.setting import Setting
from dlrm.bench.timer import Timing, in_turn, interleave

ROUND_S = 0.02
"""Of a candidate in a round, at least."""
MOST_STEPS = 2000
"""Of a round."""

Tick = Callable[[int], object]
"""Told how many candidates have come a round further; being ready counts as one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An operator on a setting."""

    operator: Operator
    setting: Setting

    def to_dict(self) -> dict[str, Any]:
        """Return what names it, JSON-ready."""
        return {"operator": self.operator.name, "setting": asdict(self.setting)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a candidate; timings are of a batch."""

    candidate: Candidate
    cold: Timing | None = None
    """On inputs that rotate past the last-level cache."""
    warm: Timing | None = None
    """On one again and again."""
    error: str | None = None
    """Why there are no timings."""


def measure(
    candidates: Sequence[Candidate], stock: Stock, rounds: int, tick: Tick
) -> list[Outcome]:
    """Time candidates round by round.

    What one of them raises is kept as its outcome, and the others go on; in a world of several
    processes it is raised, because the others would wait for it.

    Args:
        candidates: Of one operator.
        stock: What they share.
        rounds: Timed rounds.
        tick: Told of progress.

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
    batches: dict[str, int] = {}
    threads = torch.get_num_threads()
    several = len({candidate.setting.threads for candidate in candidates}) > 1

    def prepare(number: int, candidate: Candidate) -> None:
        _use_threads(candidate, stock)
        case = candidate.operator.build(candidate.setting, stock)
        steps = stock.world.broadcast_object(_steps(case))
        again = case.again or case.inputs[:1]
        for name, run, inputs, each in (
            (f"{number} cold", _keeping(case), case.inputs, case.batches),
            (f"{number} warm", case.run, again, case.again_batches if case.again else case.batches),
        ):
            runs[name] = guarded(number, in_turn(run, inputs, steps))
            batches[name] = steps * each
            # One run not timed: of the warm one, because the others have emptied the cache, and
            # of all where a team of other threads has just worked.
            first = in_turn(run, inputs, 1)
            before[name] = guarded(
                number, _before(candidate, stock, first if several or "warm" in name else None)
            )

    try:
        for number, candidate in enumerate(candidates):
            guarded(number, lambda number=number, candidate=candidate: prepare(number, candidate))()
            tick(1)
        timed = (
            interleave(
                runs, rounds=rounds, before=before, after_round=lambda: tick(len(candidates))
            )
            if runs
            else {}
        )
    finally:
        torch.set_num_threads(threads)
    outcomes = []
    for number, candidate in enumerate(candidates):
        if number in failed:
            outcomes.append(Outcome(candidate, error=failed[number]))
            continue
        cold, warm = (f"{number} {name}" for name in ("cold", "warm"))
        outcomes.append(
            Outcome(candidate, timed[cold].per(batches[cold]), timed[warm].per(batches[warm]))
        )
    return outcomes


def _keeping(case: Case) -> Callable[[Any], None]:
    """Return what runs, and keeps as many results as the case says."""
    kept: deque[object] = deque(maxlen=case.results)

    def run(given: Any) -> None:
        kept.append(case.run(given))

    return run


def reason(error: BaseException) -> str:
    """Return an error as one line."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def _steps(case: Case) -> int:
    """Return the runs of a round."""
    case.run(case.inputs[0])
    began = time.perf_counter()
    case.run(case.inputs[-1])
    once = max(time.perf_counter() - began, 1e-9)
    return max(1, min(MOST_STEPS, math.ceil(ROUND_S / once)))


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
