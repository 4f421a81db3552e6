"""What this machine can do at most, measured (`probe.py` says how).

copy        far outside of the caches, bytes read plus bytes written
products    in float32, bfloat16 and int8, by MKL and by oneDNN
gather      out[i] = table[ids[i]], from tables of cache size to far beyond; ids are uniform and
together larger than the last-level cache. What is read and written in order (ids,
out) counts into the time of a row, as in a training step.
sum         out[g] = table[ids[16 g]] + ... + table[ids[16 g + 15]]: rows are read, few written
call        a smallest operation of torch
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrm import ops, terminal
from dlrm.bench.probe import Probe, Way, visit_all
from dlrm.errors import ConfigError
from dlrm.ops import reference
from dlrm.ops.memory import in_huge_pages, keep_freed_memory
from dlrm.planning.ceilings import SUMMED, Ceilings, GatherPoint, gather_name
from dlrm.planning.facts import facts, free_bytes

TICKS = 100
"""How often `measure` calls `tick`."""
STORE_BYTES = 1 << 30
"""Size of the largest table, where a quarter of the free memory is enough for it."""
LEAST_STORE_BYTES = 1 << 26
OTHER_BYTES = 320 << 20
"""What operands, ids and results take beside it, at most."""
CACHE_BYTES = 1 << 25
"""Size of the last-level cache where the system does not tell."""
SHAPES = (
    (256, 256, 256),
    (2048, 512, 512),
    (1024, 1024, 1024),
    (4096, 1024, 1024),
    (4096, 2048, 2048),
)
"""m, k, n, smaller products first. The first says whether the others are worth the time."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
CALLS = 200
"""Calls in a row, so that reading the clock does not count."""
ROW_BYTES = (64, 512)
LEAST_BYTES = 1 << 16
"""Size of the smallest table; each next one is twice as large,"""
SUM_STEP = 4
"""or so many times as large where rows are added up."""
OUT_BYTES = 1 << 22
"""What a gather writes, little enough for the last-level cache,"""
LEAST_ROWS = 1 << 14
"""but not so few rows that the call counts,"""
SUM_ROWS = 1 << 16
"""nor where rows are added up, of which little is written."""


def measure(tick: Callable[[], None]) -> Ceilings:
    """Measure what this machine can do, with as many threads as torch uses now.

    Calls `tick` `TICKS` times, to advance a progress bar.

    Raises:
        ConfigError: Memory is too short; nothing was allocated.

    """
    keep_freed_memory()
    store = in_huge_pages(torch.empty(store_bytes() // 4)).zero_()
    every = torch.get_num_threads()
    threads = thread_counts(every)
    cache = facts().last_level
    # Ids of a very large cache would take as much memory.
    gathers = Gathers(store, min(cache.total_bytes, 2 * CACHE_BYTES) if cache else CACHE_BYTES)
    curve = list(gathers.curve(every))
    sums = list(gathers.curve(every, summed=True))
    shortest = min(ROW_BYTES)
    fewer = {n: gathers.probe(shortest, store.nbytes, n) for n in threads[:-1]}
    copied = {count: _copy(store, count) for count in threads}
    multiplied = [probe for name in DTYPES for probe in _products(name, threads)]
    call = _calls(every)
    probes = [
        *copied.values(), *multiplied, *(probe for *_, probe in (*curve, *sums)), *fewer.values(),
        call,
    ]  # fmt: skip
    ticked = 0

    def done(share: float) -> None:
        nonlocal ticked
        while ticked < int(TICKS * share):
            ticked += 1
            tick()

    quiet = visit_all(probes, done)
    flops: dict[str, dict[int, float]] = {}
    for probe in multiplied:
        if probe.seconds:
            flops.setdefault(probe.name.split()[0], {})[probe.threads] = probe.rate
    largest = [probe for row, _, probe in curve if row == shortest][-1]
    return Ceilings(
        threads=every,
        copy={count: probe.rate for count, probe in copied.items()},
        flops=flops,
        gather=_points(curve),
        summed=_points(sums),
        gather_by_threads={n: probe.rate for n, probe in (fewer | {every: largest}).items()},
        call_s=1 / call.rate,
        spread={probe.name: probe.spread for probe in probes if probe.seconds},
        quiet=quiet,
    )


def _points(curve: Iterable[tuple[int, int, Probe]]) -> tuple[GatherPoint, ...]:
    return tuple(GatherPoint(row, table, 1 / probe.rate) for row, table, probe in curve)


def thread_counts(every: int) -> list[int]:
    """Return 1, 2, 4, ... and all."""
    return [*(1 << power for power in range(every.bit_length()) if 1 << power < every), every]


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


class Gathers:
    """Tables that are the beginnings of one block of memory, and the ids of their rows.

    The `store` is float32, flat, a power of two of bytes, in huge pages as tables are; nothing
    reads what it holds. Ids rotate beyond the `cache_bytes` of the last level, tables within it are
    warm.
    """

    def __init__(self, store: Tensor, cache_bytes: int):
        self.store, self.cache_bytes = store, cache_bytes
        count = max(cache_bytes * 3 // 2 // 8, 2 * max(_rows(min(ROW_BYTES)), SUM_ROWS))
        drawn = torch.Generator().manual_seed(0)
        self.drawn = torch.randint(store.nbytes, (count,), generator=drawn)
        self.ids = torch.empty_like(self.drawn)
        self.out = torch.empty(max(_rows(size) * size // 4 for size in ROW_BYTES))

    def curve(self, threads: int, *, summed: bool = False) -> Iterator[tuple[int, int, Probe]]:
        """Return row_bytes, table_bytes and what measures rows of such a table."""
        for row_bytes in ROW_BYTES:
            table_bytes = LEAST_BYTES
            while table_bytes <= self.store.nbytes:
                probe = self.probe(row_bytes, table_bytes, threads, summed=summed)
                yield row_bytes, table_bytes, probe
                table_bytes *= SUM_STEP if summed else 2

    def probe(
        self, row_bytes: int, table_bytes: int, threads: int, *, summed: bool = False
    ) -> Probe:
        """Return what measures rows of one table, named as `gather_name` does.

        They are written in order, or added up where `summed`.
        """
        table = self.store[: table_bytes // 4].view(-1, row_bytes // 4)
        count = SUM_ROWS if summed else _rows(row_bytes)
        chunks = self.ids.split(count)[: len(self.ids) // count]
        kernels = ops.backend(table)
        ends = torch.arange(0, count + 1, SUMMED)
        at = 0

        def ids() -> Tensor:
            nonlocal at
            at = (at + 1) % len(chunks)
            return chunks[at]

        def prepare() -> None:
            torch.bitwise_and(self.drawn, len(table) - 1, out=self.ids)
            if table_bytes <= 2 * self.cache_bytes:
                table.sum()

        if summed:
            ways = [
                Way("embedding_bag", count, lambda: reference.pooled_lookup(table, ids(), ends)),
                Way("pooled_lookup", count, lambda: kernels.pooled_lookup(table, ids(), ends)),
            ]
            name = gather_name(row_bytes, table_bytes, threads, "sum")
            return Probe(name, threads, ways, prepare)
        out = self.out[: count * row_bytes // 4].view(count, -1)
        ways = [
            Way("index_select", count, lambda: torch.index_select(table, 0, ids(), out=out)),
            Way("lookup", count, lambda: kernels.lookup(table, ids())),
        ]
        return Probe(gather_name(row_bytes, table_bytes, threads), threads, ways, prepare)


def _rows(row_bytes: int) -> int:
    return max(LEAST_ROWS, OUT_BYTES // row_bytes)


def _copy(store: Tensor, threads: int) -> Probe:
    """Return what measures copies of the first quarter of a block of memory."""
    source, target = store.chunk(4)[:2]
    way = Way("copy", 2 * source.nbytes, lambda: target.copy_(source))
    return Probe(f"copy {threads}", threads, [way])


def _calls(threads: int) -> Probe:
    tensor = torch.zeros(1)

    def several() -> None:
        for _ in range(CALLS):
            tensor.add_(tensor)

    return Probe("call", threads, [Way("add", CALLS, several)])


def _products(name: str, threads: Sequence[int]) -> Iterator[Probe]:
    """Return what measures products of a type, whose operands are pieces of the same numbers."""
    count = max(max(m * k, k * n) for m, k, n in SHAPES)
    drawn, dtype = torch.Generator().manual_seed(0), DTYPES[name]
    if name == "int8":
        numbers = torch.randint(-128, 128, (count,), generator=drawn, dtype=dtype)
    else:
        numbers = torch.randn(count, generator=drawn).to(dtype)
    ways = []
    for m, k, n in SHAPES:
        a, b, b_t = (numbers[: r * c].view(r, c) for r, c in ((m, k), (k, n), (n, k)))
        kinds = _int8(a, b, b_t) if name == "int8" else _floating(a, b, b_t)
        ways += [Way(kind, 2 * m * k * n, run) for kind, run in kinds.items()]
    for count in threads:
        yield Probe(f"{name} {count}", count, ways)


def _floating(a: Tensor, b: Tensor, b_t: Tensor) -> dict[str, Callable[[], Tensor]]:
    kinds = {"matmul": lambda: a @ b, "linear": lambda: F.linear(a, b_t)}
    if torch.backends.mkldnn.is_available():
        # For float32 torch asks MKL; this asks oneDNN, which is faster on some CPUs.
        onednn = torch.ops.mkldnn._linear_pointwise
        kinds["onednn"] = lambda: onednn(a, b_t, None, "none", [], "")
    return kinds


def _int8(a: Tensor, b: Tensor, b_t: Tensor) -> dict[str, Callable[[], Tensor]]:
    multiply = torch.ops.aten._int_mm
    return {"rows": lambda: multiply(a, b), "columns": lambda: multiply(a, b_t.t())}
