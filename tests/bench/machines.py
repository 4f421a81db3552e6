"""A machine whose ceilings and costs are round numbers."""

from dlrm.planning.ceilings import Ceilings, GatherPoint
from dlrm.planning.costs import OTHER, Costs, Device
from dlrm.planning.facts import Cache, Facts
from dlrm.planning.machine import Machine

NEAR, FAR = 1e-9, 5e-9
"""Seconds of a row in the cache, and beside it."""
CACHE_BYTES = 1 << 25

FACTS = Facts(
    cpu="Round Numbers",
    cores=2,
    instructions=("avx2",),
    caches=(Cache(1, 1 << 15, 1, 2), Cache(2, 1 << 20, 1, 2), Cache(3, CACHE_BYTES, 2, 1)),
    memory_bytes=1 << 34,
    virtual=None,
    counters=(),
)


def row_s(row_bytes: int, table_bytes: int) -> float:
    """A cache that holds what it holds: the rest of the rows is far."""
    missed = max(0.0, 1 - CACHE_BYTES / table_bytes)
    return (NEAR + missed * (FAR - NEAR)) * (1 + (row_bytes // 64 - 1) / 7)


CEILINGS = Ceilings(
    threads=2,
    copy={1: 60e9, 2: 110e9},
    flops={"fp32": {1: 100e9, 2: 200e9}, "bf16": {1: 200e9, 2: 400e9}},
    gather=tuple(
        GatherPoint(row_bytes, 1 << power, row_s(row_bytes, 1 << power))
        for row_bytes in (64, 512)
        for power in range(16, 31)
    ),
    gather_by_threads={1: 1e8, 2: 1.9e8},
    call_s=1e-6,
    spread={},
)

KINDS = (
    "lookup", "update", "update by rows", "dense update", "layers", "loss forward", "loss backward",
    *(f"{kind} {way}" for kind in ("dot",) for way in ("forward", "backward")),
    *(f"mlp {way} {dtype}" for way in ("forward", "backward") for dtype in ("fp32", "bf16")),
)  # fmt: skip
WEIGHTS = dict.fromkeys(KINDS, (10.0, 2.0, 1.0, 1.0, 1.0)) | {OTHER: (50.0, 0, 0, 0, 0)}
COSTS = Costs(WEIGHTS, error=0.1, worst=0.3, steps=40, cache_bytes=CACHE_BYTES)
DEVICE = Device(CEILINGS, COSTS)


def machine() -> Machine:
    return Machine(FACTS, CEILINGS, {}, "2026-01-01T00:00:00+00:00", COSTS)
