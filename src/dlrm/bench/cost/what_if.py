"""Another machine, or other numbers: what a step that was measured here would take with them.

    ms = rows * precision * (calls + compute / (flops * cores^c) + stream / (bandwidth * cores^s)
         + cache * (latency * wait / cores^l + transfer / (bandwidth * cores^s)))

for each operator, whose measured time is split as the fitted model splits it. `cores` counts those
of this machine as 1; c, s and l say how its arithmetic, copies and waiting grew with threads.
`cache`, `rows` and `precision` are multipliers that the fitted model gave, kept with the row; all
is 1 today. The page of benchmarks computes the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import log
from typing import Any

from dlrm.errors import ConfigError, unknown
from dlrm.planning.quantities import quantity

PRECISIONS = ("fp32", "bf16", "int8")
ROWS = ("fp32", "bf16", "int8", "int4")
FACTORS = ("bandwidth", "flops", "latency")
CACHES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Sizes of the last-level cache, times today's, whose multipliers are kept."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Changes, each against this machine."""

    cores: float = 1.0
    """Times as many."""
    bandwidth: float = 1.0
    """Times that of memory."""
    flops: float = 1.0
    """Times the arithmetic of a core."""
    latency: float = 1.0
    """Times that of memory."""
    cache: float = 1.0
    """Times the last-level cache."""
    precision: str = ""
    """Of the MLPs' products; empty for as it is."""
    rows: str = ""
    """Numbers in the tables; empty for as they are."""

    def ms(self, operator: Mapping[str, Any], exponents: Mapping[str, float]) -> float:
        """Return what an operator of a row would take.

        Args:
            operator: One of `operators` of a row of the suites train and infer.
            exponents: Of the same row.

        """
        terms = operator["terms"]
        moved = self.bandwidth * self.cores ** exponents["stream"]
        random = (
            terms["latency_ms"] * self.latency / self.cores ** exponents["latency"]
            + terms["transfer_ms"] / moved
        )
        ms = (
            terms["calls_ms"]
            + terms["compute_ms"] / (self.flops * self.cores ** exponents["compute"])
            + terms["stream_ms"] / moved
            + random * _between(operator["cache"], self.cache)
        )
        precision = operator["precision"].get(self.precision, 1.0)
        return ms * precision * operator["rows"].get(self.rows, 1.0)

    def step_ms(self, row: Mapping[str, Any]) -> float:
        """Return what the step of a row would take."""
        return sum(self.ms(operator, row["exponents"]) for operator in row["operators"])

    def to_dict(self) -> dict[str, Any]:
        """Return what is changed, JSON-ready."""
        unchanged = WhatIf()
        return {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != getattr(unchanged, field.name)
        }


def read(text: str, *, cores: int, copy: float, cache_bytes: int) -> WhatIf:
    """Read changes such as `bandwidth=2x,cores=4,cache=64MB,precision=int8`.

    Args:
        text: Names and values. A value with an x is a factor; cores are counted, caches in bytes, a
            bandwidth in bytes a second.
        cores: Of this machine.
        copy: Bytes a second that it copies.
        cache_bytes: Of its last-level cache.

    Raises:
        ConfigError: There is no such name or value; lists those there are.

    """
    found: dict[str, float | str] = {}
    now = {"cores": float(cores), "bandwidth": copy, "cache": float(cache_bytes)}
    for word in text.split(","):
        name, equals, value = (part.strip() for part in word.partition("="))
        if name not in (names := [field.name for field in fields(WhatIf)]):
            raise unknown("what-if", name, names)
        if not equals or not value:
            raise ConfigError(f'what-if {name} has no value; write for example "{_example(name)}"')
        if name in ("precision", "rows"):
            if value not in (choices := PRECISIONS if name == "precision" else ROWS):
                raise unknown(f"what-if {name}", value, choices)
            found[name] = value
        else:
            found[name] = _factor(name, value, now.get(name))
    return WhatIf(**found)  # pyright: ignore[reportArgumentType]


def _factor(name: str, value: str, now: float | None) -> float:
    if value.lower().endswith("x"):
        try:
            factor = float(value[:-1])
        except ValueError:
            factor = 0.0
        if not 0 < factor < float("inf"):
            raise ConfigError(f'what-if {name} is "{value}", expected a positive factor such as 2x')
        return factor
    if now is None:
        raise ConfigError(f'what-if {name} is "{value}", expected a factor such as 2x')
    if name == "cores":
        if not value.isdecimal() or int(value) < 1:
            raise ConfigError(f'what-if cores is "{value}", expected a number of cores, or 2x')
        return int(value) / now
    return quantity(value, "B", f"what-if {name}") / now


def _example(name: str) -> str:
    values = {"cores": "4", "cache": "64MB", "precision": "bf16", "rows": "bf16"}
    return f"{name}={values.get(name, '2x')}"


def _between(pairs: Sequence[Sequence[float]], factor: float) -> float:
    """Return the multiplier at a factor, on lines over its logarithm."""
    if factor <= pairs[0][0]:
        return pairs[0][1]
    for (low, below), (high, above) in pairwise(pairs):
        if factor <= high:
            return below + (above - below) * log(factor / low) / log(high / low)
    return pairs[-1][1]
