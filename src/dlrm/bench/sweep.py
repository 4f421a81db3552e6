"""Operators over sweeps of settings: what is measured, whether it fits into memory, as rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from dlrm.bench import batches
from dlrm.bench.operator import Setting, Stock
from dlrm.bench.operators import OPERATORS
from dlrm.bench.timed import Candidate, Outcome, Tick, measure, measure_apart
from dlrm.errors import ConfigError, unknown
from dlrm.ops.memory import keep_freed_memory
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.costs import least
from dlrm.planning.facts import free_bytes, machine_bytes
from dlrm.terminal import human_bytes

SHARE = 0.7
"""Share of the free memory that candidates may take together."""
FIGURES = (
    "ms", "ms_low", "ms_high", "p95_ms", "warm_ms", "gflops_per_s", "gb_per_s", "roofline_ms",
    "roofline_share", "bound",
)  # fmt: skip
"""What a candidate that failed has none of."""


def candidates(
    names: Iterable[str], lists: Mapping[str, Sequence[Any]], threads: int
) -> list[Candidate]:
    """Return every operator on every setting of the lists (field -> values) in which it differs.

    Operators to which threads do not matter have `threads` of them.

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

    `tick` is told of progress: in all, candidates * (rounds + 1). `free` is memory in bytes, what
    is free now where None. Returns what became of some of them, each time it is known of some.

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
    """Yield candidates of one operator, in their order, in parts that fit into memory together."""
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


def values(outcome: Outcome, ceilings: Ceilings | None) -> dict[str, Any]:
    """Return the row of a candidate, JSON-ready: settings that do not matter to it are None."""
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
