"""What a machine is: cores, instruction sets, caches, memory, counters.

What the system does not tell is left out, never guessed.
"""

import hashlib
import json
import os
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from dlrm.planning import counters

GIB = 2**30
CPUINFO = Path("/proc/cpuinfo")
DEVICES = Path("/sys/devices/system/cpu")

INSTRUCTIONS = (
    "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "sve", "sve2", "i8mm", "bf16",
)  # fmt: skip
"""What the kernels of torch and ours choose by, as /proc/cpuinfo calls it: x86, then ARM."""


@dataclass(frozen=True, slots=True)
class Cache:
    """Caches of one kind, for data."""

    level: int
    size_bytes: int
    """Of one of them."""
    cores: int
    """That share one."""
    instances: int
    """That the cores of this process reach."""

    @property
    def total_bytes(self) -> int:
        """Of all of them."""
        return self.size_bytes * self.instances


@dataclass(frozen=True, slots=True)
class Facts:
    """One machine, as this process sees it."""

    cpu: str
    cores: int
    """That this process may use."""
    instructions: tuple[str, ...]
    """Instruction sets that matter here, e.g. `avx512_bf16`."""
    caches: tuple[Cache, ...]
    """Of data, level 1 first."""
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

    def to_dict(self) -> dict[str, Any]:
        """Return the facts JSON-ready, with the fingerprint."""
        return {**json.loads(json.dumps(asdict(self))), "fingerprint": self.fingerprint}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Facts":
        """Return what `to_dict` was made of.

        Raises:
            KeyError, TypeError, ValueError: These are no such values.

        """
        virtual = values["virtual"]
        return cls(
            cpu=str(values["cpu"]),
            cores=int(values["cores"]),
            instructions=tuple(map(str, values["instructions"])),
            caches=tuple(Cache(**{k: int(v) for k, v in c.items()}) for c in values["caches"]),
            memory_bytes=int(values["memory_bytes"]),
            virtual=None if virtual is None else bool(virtual),
            counters=tuple(map(str, values["counters"])),
        )


@cache
def facts() -> Facts:
    """Return what this machine is."""
    return read(CPUINFO, DEVICES, usable_cores())


def read(cpuinfo: Path, devices: Path, usable: Set[int]) -> Facts:
    """Return what Linux says of a machine; elsewhere, and where files are missing, less.

    Args:
        cpuinfo: /proc/cpuinfo.
        devices: /sys/devices/system/cpu.
        usable: Numbers of the cores that this process may use.

    """
    flags = _flags(cpuinfo)
    return Facts(
        cpu=cpu_name(cpuinfo),
        cores=len(usable),
        instructions=tuple(name for name in INSTRUCTIONS if name in flags),
        caches=_caches(devices, usable),
        memory_bytes=memory_bytes() or 0,
        # Only x86 has a flag that says it.
        virtual="hypervisor" in flags if "sse2" in flags else None,
        counters=counters.readable(),
    )


def last_level(caches: tuple[Cache, ...]) -> Cache | None:
    """Return the last level of caches; None where there are none that the system tells of."""
    return max(caches, key=lambda cache: (cache.level, cache.size_bytes), default=None)


def usable_cores() -> set[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _flags(cpuinfo: Path) -> set[str]:
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


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
    return tuple(Cache(*known, instances=len(each)) for known, each in sorted(shared.items()))


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
    """Return what the CPU is called.

    Args:
        cpuinfo: Where Linux says it.

    """
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Return the size of the memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
