"""All ceilings of this machine, in one go."""

from collections.abc import Callable
from pathlib import Path

import torch

from dlrm import terminal
from dlrm.bench.machine import probe, products, stream
from dlrm.bench.machine.gather import Gathers
from dlrm.errors import ConfigError
from dlrm.ops.memory import in_huge_pages, keep_freed_memory
from dlrm.planning.ceilings import Ceilings, GatherPoint
from dlrm.planning.facts import facts, last_level

TICKS = 100
"""How often `measure` calls `tick`."""
STORE_BYTES = 1 << 30
"""Of the largest table, where a quarter of the free memory is enough for it."""
LEAST_STORE_BYTES = 1 << 26
OTHER_BYTES = 320 << 20
"""What operands, ids and results take beside it, at most."""
CACHE_BYTES = 1 << 25
"""Of the last-level cache where the system does not tell."""
MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")


def measure(tick: Callable[[], None]) -> Ceilings:
    """Measure what this machine can do, with as many threads as torch uses now.

    Args:
        tick: Called `TICKS` times, to advance a progress bar.

    Raises:
        ConfigError: Memory is too short; nothing was allocated.

    """
    keep_freed_memory()
    store = in_huge_pages(torch.empty(store_bytes() // 4)).zero_()
    every = torch.get_num_threads()
    threads = thread_counts(every)
    gathers = Gathers(store, cache_bytes())
    curve = list(gathers.curve(every))
    fewer = dict(zip(threads[:-1], gathers.by_threads(threads[:-1]), strict=True))
    copies = dict(zip(threads, stream.copies(store, threads), strict=True))
    multiplied = list(products.probes(threads))
    call = stream.calls(every)
    probes = [
        *copies.values(), *multiplied, *(each for *_, each in curve), *fewer.values(), call,
    ]  # fmt: skip
    ticked = 0

    def done(share: float) -> None:
        nonlocal ticked
        while ticked < int(TICKS * share):
            ticked += 1
            tick()

    quiet = probe.measure(probes, done)
    points = tuple(GatherPoint(row, table, 1 / each.rate) for row, table, each in curve)
    flops: dict[str, dict[int, float]] = {}
    for each in multiplied:
        if each.seconds:
            flops.setdefault(each.name.split()[0], {})[each.threads] = each.rate
    shortest = min(point.row_bytes for point in points)
    largest = [each for row, _, each in curve if row == shortest][-1]
    return Ceilings(
        threads=every,
        copy={count: each.rate for count, each in copies.items()},
        flops=flops,
        gather=points,
        gather_by_threads={n: each.rate for n, each in (fewer | {every: largest}).items()},
        call_s=1 / call.rate,
        spread={each.name: each.spread for each in probes if each.seconds},
        quiet=quiet,
    )


def thread_counts(every: int) -> list[int]:
    """Return 1, 2, 4, ... and all."""
    return [*(1 << power for power in range(every.bit_length()) if 1 << power < every), every]


def free_bytes() -> int | None:
    """Return the memory that programs can still get; None where the system does not tell."""
    found = []
    try:
        lines = MEMINFO.read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    try:
        limit, used = ((GROUP / name).read_text() for name in ("memory.max", "memory.current"))
        found.append(int(limit) - int(used))
    except (OSError, ValueError):
        pass  # no limit: "max"
    return min(found, default=None)


def store_bytes() -> int:
    """Return the size of the largest table: a power of two.

    Raises:
        ConfigError: Not even a small one fits into a quarter of the free memory.

    """
    free = free_bytes()
    if free is None:
        return STORE_BYTES
    room = free // 4 - OTHER_BYTES
    if room < LEAST_STORE_BYTES:
        least = 4 * (OTHER_BYTES + LEAST_STORE_BYTES)
        raise ConfigError(
            f"{terminal.human_bytes(free)} of memory are free; measuring takes a quarter of what "
            f"is free, and needs {terminal.human_bytes(least)} to be"
        )
    return min(STORE_BYTES, 1 << (room.bit_length() - 1))


def cache_bytes() -> int:
    """Return the size of the last-level cache; of a larger one than 64 MB, that much."""
    found = last_level(facts().caches)
    return min(found.total_bytes, 2 * CACHE_BYTES) if found else CACHE_BYTES
