"""Operators over sweeps of settings: what is measured, whether it fits, in turns, as rows.

python -m dlrm.bench.sweep        as one of the processes that an operator takes
"""

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch

from dlrm.bench import batches
from dlrm.bench.operators import OPERATORS, Case, Operator, Setting, Stock
from dlrm.bench.processes import answers
from dlrm.bench.timer import Timing, in_turn, interleave
from dlrm.errors import ConfigError, unknown
from dlrm.ops.memory import keep_freed_memory
from dlrm.parallel.world import World
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.costs import least
from dlrm.planning.facts import free_bytes
from dlrm.planning.footprint import machine_bytes
from dlrm.terminal import human_bytes

ROUND_S = 0.02
"""Of a candidate in a round, at least."""
MOST_STEPS = 2000
"""Of a round."""
SHARE = 0.7
"""Of the free memory, that candidates may take together."""
FIGURES = (
    "ms", "ms_low", "ms_high", "p95_ms", "warm_ms", "gflops_per_s", "gb_per_s", "roofline_ms",
    "roofline_share", "bound",
)  # fmt: skip
"""What a candidate that failed has none of."""

Tick = Callable[[int], object]
"""Told how many candidates have come a round further; being ready counts as one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An operator on a setting."""

    operator: Operator
    setting: Setting

    @property
    def tables(self) -> tuple[object, ...]:
        """What candidates that share tables have in common; their size first."""
        setting = self.setting
        size = self.operator.work(setting).tables_bytes
        return size, setting.tables, setting.rows, setting.dim, setting.storage, setting.optim


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


def candidates(
    names: Iterable[str], lists: Mapping[str, Sequence[Any]], threads: int
) -> list[Candidate]:
    """Return every operator on every setting of the lists, in which it differs.

    Args:
        names: Of operators.
        lists: Field of `Setting` -> its values.
        threads: Of operators to which they do not matter.

    Raises:
        ConfigError: There is no such operator, or a value has no meaning.

    """
    listed: dict[tuple[str, Setting], Candidate] = {}
    for name in names:
        if name not in OPERATORS:
            raise unknown("operator", name, OPERATORS)
        operator = OPERATORS[name]
        fields = [field for field in lists if field in operator.fields]
        for values in product(*(lists[field] for field in fields)):
            setting = Setting(**{"threads": threads, **dict(zip(fields, values, strict=True))})
            listed.setdefault((name, setting), Candidate(operator, setting))
    return list(listed.values())


def sweep(
    every: Sequence[Candidate], rounds: int, tick: Tick, free: int | None = None
) -> Iterator[list[Outcome]]:
    """Measure candidates: those of an operator round by round beside each other.

    Args:
        every: Candidates.
        rounds: Timed rounds of each.
        tick: Told of progress: in all, candidates * (rounds + 1).
        free: Bytes of memory; None for what is free now.

    Returns:
        What became of some of them, each time it is known of some.

    Raises:
        ConfigError: A candidate does not fit into memory, or there are no rounds; before anything
            is allocated.

    """
    if rounds < 1:
        raise ConfigError(f"rounds is {rounds}, expected at least 1")
    free = free_bytes() or machine_bytes() if free is None else free
    check(every, free)
    return _measured(every, rounds, tick, free)


def _measured(
    every: Sequence[Candidate], rounds: int, tick: Tick, free: int
) -> Iterator[list[Outcome]]:
    # As the training loop does.
    keep_freed_memory()
    for name in dict.fromkeys(candidate.operator.name for candidate in every):
        of_one = [candidate for candidate in every if candidate.operator.name == name]
        for part in parts(of_one, free):
            if OPERATORS[name].processes > 1:
                yield measure_apart(part, rounds, tick)
                continue
            with Stock() as stock:
                yield measure(part, stock, rounds, tick)


def check(every: Sequence[Candidate], free: int) -> None:
    """Return if each candidate fits into so many bytes of memory by itself.

    Raises:
        ConfigError: One does not fit; with the numbers, and what would fit.

    """
    for candidate in every:
        setting, operator = candidate.setting, candidate.operator
        tables_bytes = operator.work(setting).tables_bytes
        inputs_bytes = operator.inputs_bytes(setting)
        need = tables_bytes + inputs_bytes
        if need <= free:
            continue
        what, instead = f"batches of {operator.name}", "take a smaller --batch"
        words = f"batch {setting.batch:,}"
        if "rows" in operator.fields:
            what = f"tables of {operator.name}"
            words = f"{setting.tables:,} x {setting.rows:,} rows x {setting.dim} numbers, {words}"
            rows = int(setting.rows * (free - inputs_bytes) / tables_bytes)
            if rows > 0:
                instead = f"--rows {_short(rows)} would fit"
        raise ConfigError(
            f"{what} ({words}) need {human_bytes(need)}, {human_bytes(free)} are free; {instead}"
        )


def parts(every: Sequence[Candidate], free: int) -> Iterator[list[Candidate]]:
    """Yield candidates of one operator in parts that fit into memory together, each in their order.

    Args:
        every: Candidates of which each fits.
        free: Bytes of memory.

    """
    part: list[Candidate] = []
    shared: set[tuple[object, ...]] = set()
    taken = 0
    for candidate in sorted(every, key=lambda candidate: candidate.tables):
        inputs_bytes = candidate.operator.inputs_bytes(candidate.setting)
        tables_bytes = candidate.operator.work(candidate.setting).tables_bytes
        more = inputs_bytes + (0 if candidate.tables in shared else tables_bytes)
        if part and taken + more > SHARE * free:
            yield sorted(part, key=every.index)
            part, shared, taken, more = [], set(), 0, inputs_bytes + tables_bytes
        part.append(candidate)
        shared.add(candidate.tables)
        taken += more
    if part:
        yield sorted(part, key=every.index)


def _short(rows: int) -> str:
    """Return a number of rows as flags take it, rounded down."""
    for factor, unit in ((10**6, "M"), (10**3, "k")):
        if rows >= factor:
            return f"{rows // factor}{unit}"
    return str(rows)


def measure(every: Sequence[Candidate], stock: Stock, rounds: int, tick: Tick) -> list[Outcome]:
    """Time candidates of one operator round by round.

    What one of them raises is kept as its outcome, and the others go on; in a world of several
    processes it is raised, because the others would wait for it.

    Args:
        every: Candidates.
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
    worked: dict[str, int] = {}
    threads = torch.get_num_threads()
    several = len({candidate.setting.threads for candidate in every}) > 1

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
            worked[name] = steps * each
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
    kept: deque[object] = deque(maxlen=len(case.inputs))
    return lambda given: kept.append(case.run(given))


def reason(error: BaseException) -> str:
    """Return an error as one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


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


def measure_apart(every: Sequence[Candidate], rounds: int, tick: Tick) -> list[Outcome]:
    """Time candidates in fresh processes, as `measure`; the first one's figures count.

    Where these end before their time, each candidate gets processes of its own, so that one that
    fails does not take the others with it.
    """
    listed = [[each.operator.name, asdict(each.setting)] for each in every]
    task = {"rounds": rounds, "candidates": listed}
    words = ["-m", "dlrm.bench.sweep"]
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


def values(outcome: Outcome, ceilings: Ceilings | None) -> dict[str, Any]:
    """Return the row of a candidate, JSON-ready: settings that do not matter to it are None.

    Args:
        outcome: Of it.
        ceilings: Of the machine; None where they are not known.

    """
    operator, setting = outcome.candidate.operator, outcome.candidate.setting
    work = operator.work(setting)
    row: dict[str, Any] = {
        "operator": operator.name,
        **setting.only((*operator.fields, "threads")),
        "flops": work.flops,
        "bytes": work.bytes,
        "lines": work.lines,
        **dict.fromkeys(FIGURES),
        "error": outcome.error,
    }
    if outcome.cold is None or outcome.warm is None:
        return row
    cold_s = outcome.cold.median
    low, high = outcome.cold.interval
    row |= {
        "ms": cold_s * 1e3,
        "ms_low": low * 1e3,
        "ms_high": high * 1e3,
        "p95_ms": outcome.cold.percentile(95)[0] * 1e3,
        "warm_ms": outcome.warm.median * 1e3,
        "gflops_per_s": work.flops / cold_s / 1e9,
        "gb_per_s": work.bytes / cold_s / 1e9,
    }
    if ceilings is None:
        return row
    least_s, bound = least(work, ceilings.with_threads(setting.threads), batches.cache_bytes())
    return row | {
        "roofline_ms": least_s * 1e3,
        "roofline_share": least_s / cold_s,
        "bound": bound,
    }


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
            timed = [(each.cold, each.warm) for each in outcomes if each.cold and each.warm]
            print(json.dumps([(c.seconds, w.seconds) for c, w in timed]), flush=True)


if __name__ == "__main__":
    main()
