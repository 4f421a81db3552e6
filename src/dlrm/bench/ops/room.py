"""Whether what is to be measured fits into memory; asked before anything is allocated."""

import os
from collections.abc import Iterator, Sequence

from dlrm.bench.machine import measure
from dlrm.bench.ops.timed import Candidate
from dlrm.errors import ConfigError
from dlrm.terminal import human_bytes

SHARE = 0.7
"""Of the free memory, that candidates may take together."""


def free_bytes() -> int:
    """Return the memory that programs can still get; where nobody tells, all there is."""
    free = measure.free_bytes()
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if free is None else free


def check(candidates: Sequence[Candidate], free: int) -> None:
    """Return if each candidate fits by itself.

    Args:
        candidates: To be measured.
        free: Bytes of memory.

    Raises:
        ConfigError: One does not fit; with the numbers, and what would fit.

    """
    for candidate in candidates:
        setting, need = candidate.setting, candidate.operator.need(candidate.setting)
        if need.total_bytes <= free:
            continue
        name, said = candidate.operator.name, f"batch {setting.batch:,}"
        what, instead = f"batches of {name}", "take a smaller --batch"
        if "rows" in candidate.operator.fields:
            what = f"tables of {name}"
            said = f"{setting.tables:,} x {setting.rows:,} rows x {setting.dim} numbers, {said}"
            rows = int(setting.rows * (free - need.inputs_bytes) / need.tables_bytes)
            if rows > 0:
                instead = f"--rows {_short(rows)} would fit"
        raise ConfigError(
            f"{what} ({said}) need {human_bytes(need.total_bytes)}, {human_bytes(free)} are free; "
            f"{instead}"
        )


def parts(candidates: Sequence[Candidate], free: int) -> Iterator[list[Candidate]]:
    """Yield candidates of one operator in parts that fit into memory together, each in their order.

    Args:
        candidates: Each of which fits.
        free: Bytes of memory.

    """
    part: list[Candidate] = []
    shared: set[tuple[object, ...]] = set()
    taken = 0
    for candidate in sorted(candidates, key=_tables):
        need, key = candidate.operator.need(candidate.setting), _tables(candidate)
        more = need.inputs_bytes + (0 if key in shared else need.tables_bytes)
        if part and taken + more > SHARE * free:
            yield sorted(part, key=candidates.index)
            part, shared, taken, more = [], set(), 0, need.total_bytes
        part.append(candidate)
        shared.add(key)
        taken += more
    if part:
        yield sorted(part, key=candidates.index)


def _tables(candidate: Candidate) -> tuple[object, ...]:
    """Return what candidates that share tables have in common."""
    setting = candidate.setting
    size = candidate.operator.need(setting).tables_bytes
    return size, setting.tables, setting.rows, setting.dim, setting.storage, setting.optim


def _short(rows: int) -> str:
    """Return a number of rows as flags take it, rounded down."""
    for factor, unit in ((10**6, "M"), (10**3, "k")):
        if rows >= factor:
            return f"{rows // factor}{unit}"
    return str(rows)
