"""What a machine is: cores, instruction sets, caches, memory, counters.

What the system does not tell is left out, never guessed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

GIB = 2**30


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


def facts() -> Facts:
    """Return what this machine is."""
    raise NotImplementedError
