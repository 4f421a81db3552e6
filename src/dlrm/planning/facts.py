"""What a machine is: cores, instruction sets, caches, memory, hardware counters.

What the system does not tell is left out, never guessed.
"""

import hashlib
import json
import os
import platform
from collections import defaultdict
from collections.abc import Iterator, Set
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dlrm.planning.record import Record

GIB = 2**30
CPUINFO = Path("/proc/cpuinfo")
DEVICES = Path("/sys/devices/system/cpu")
MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")
EVENTS = Path("/sys/bus/event_source/devices/cpu/events")
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")

INSTRUCTIONS = (
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "sve", "sve2", "i8mm", "bf16",
)  # fmt: skip
"""What the kernels of torch and ours choose by, as /proc/cpuinfo calls it: x86, then ARM."""


COUNTERS = {"cycles": "cpu-cycles", "instructions": "instructions", "cache-misses": "cache-misses"}
"""Hardware counter -> what Linux calls the event."""


@dataclass(frozen=True, slots=True)
class Cache(Record):
    """Caches of one kind, for data."""

    level: int
    size_bytes: int
    """Bytes of one cache."""
    cores: int
    """Cores that share a cache."""
    instances: int
    """Caches that the cores of this process reach."""

    @property
    def total_bytes(self) -> int:
        """Bytes of all caches of this level."""
        return self.size_bytes * self.instances


@dataclass(frozen=True, slots=True)
class Facts(Record):
    """One machine, as this process sees it."""

    cpu: str
    cores: int
    """Cores that this process may use."""
    instructions: tuple[str, ...]
    """Instruction sets that matter here, e.g. `avx512_bf16`."""
    caches: tuple[Cache, ...]
    """Caches of data, level 1 first."""
    memory_bytes: int
    """0 where the system does not tell."""
    virtual: bool | None
    """Whether it is a virtual machine; None where the system does not tell."""
    counters: tuple[str, ...]
    """Hardware counters that can be read: of cycles, instructions, cache-misses."""

    @property
    def fingerprint(self) -> str:
        """12 hexadecimal digits, the same on equal hardware.

        Memory counts in whole gibibytes, because a kernel keeps a little for itself. Counters do
        not count: who may read them is a matter of rights.
        """
        known = asdict(self) | {"memory_bytes": round(self.memory_bytes / GIB)}
        del known["counters"]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def last_level(self) -> Cache | None:
        """The last level of caches; None where there are none that the system tells of."""
        return max(self.caches, key=lambda cache: (cache.level, cache.size_bytes), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts JSON-ready, with the fingerprint."""
        return {**Record.to_dict(self), "fingerprint": self.fingerprint}


@cache
def facts() -> Facts:
    """Return what this machine is."""
    return read(CPUINFO, DEVICES, usable_cores())


def read(cpuinfo: Path, devices: Path, usable: Set[int]) -> Facts:
    """Return what Linux says of a machine; elsewhere, and where files are missing, less.

    The files are /proc/cpuinfo and /sys/devices/system/cpu; only `usable` cores count.
    """
    flags = set(" ".join(_values(cpuinfo, "flags", "Features")[:1]).split())
    return Facts(
        cpu=cpu_name(cpuinfo),
        cores=len(usable),
        instructions=tuple(name for name in INSTRUCTIONS if name in flags),
        caches=_caches(devices, usable),
        memory_bytes=memory_bytes() or 0,
        # Only x86 has a flag that says it.
        virtual="hypervisor" in flags if "sse2" in flags else None,
        counters=readable_counters(),
    )


def usable_cores() -> set[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _values(cpuinfo: Path, *names: str) -> list[str]:
    """Return what /proc/cpuinfo says under these names, of each core."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else ()
    parts = (line.partition(":") for line in lines)
    return [value.strip() for name, _, value in parts if name.strip() in names]


def _caches(devices: Path, cores: Set[int]) -> tuple[Cache, ...]:
    shared: dict[tuple[int, int, int], set[frozenset[int]]] = defaultdict(set)
    for core in cores:
        for folder in sorted(devices.glob(f"cpu{core}/cache/index*")):
            try:
                level = int((folder / "level").read_text())
                kind = (folder / "type").read_text().strip()
                size = _size((folder / "size").read_text().strip())
                users = frozenset(_numbers((folder / "shared_cpu_list").read_text().strip()))
            except (OSError, ValueError):
                continue
            if kind in ("Data", "Unified"):
                shared[level, size, len(users)].add(users)
    return tuple(Cache(*known, instances=len(cpus)) for known, cpus in sorted(shared.items()))


def _size(text: str) -> int:
    """Return the bytes of e.g. `48K`."""
    factor = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1)
    return int(text.rstrip("KMG")) * factor


def _numbers(text: str) -> Iterator[int]:
    """Return the numbers of e.g. `0-3,8`."""
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def cpu_name(cpuinfo: Path = CPUINFO) -> str:
    """Return what the CPU is called, by the file in which Linux says it.

    Virtual machines may tell the brand alone, `AMD EPYC`, of CPUs that differ twofold in speed: the
    name of those has family and model, too.
    """
    names = _values(cpuinfo, "model name")
    if not names:
        return platform.processor() or platform.machine()
    kind = [*_values(cpuinfo, "cpu family")[:1], *_values(cpuinfo, "model")[:1]]
    if len(kind) == 2 and not any(map(str.isdigit, names[0])):
        return f"{names[0]} family {kind[0]} model {kind[1]}"
    return names[0]


def memory_bytes() -> int | None:
    """Return the size of the memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def machine_bytes() -> int:
    """Return the size of the memory; more than any where the system does not tell."""
    return memory_bytes() or 1 << 60


def readable_counters() -> tuple[str, ...]:
    """Return the counters that the system has and lets a process read of itself."""
    try:
        if int(PARANOID.read_text()) > 2:
            return ()
    except (OSError, ValueError):
        return ()
    return tuple(name for name, event in COUNTERS.items() if (EVENTS / event).is_file())


def cache_bytes() -> int:
    """Return the size of the last-level cache; 32 MB where the system does not tell."""
    cache = facts().last_level
    return cache.size_bytes if cache else 32 * 2**20


def free_bytes() -> int | None:
    """Return the memory that programs can still get; None where the system does not tell."""
    free = []
    with suppress(OSError, ValueError, IndexError):
        lines = MEMINFO.read_text().splitlines()
        free += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    with suppress(OSError, ValueError):
        limit, used = ((GROUP / name).read_text() for name in ("memory.max", "memory.current"))
        # No limit is called "max".
        free.append(int(limit) - int(used))
    return min(free, default=None)
