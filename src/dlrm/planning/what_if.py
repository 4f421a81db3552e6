"""Another machine, or other numbers: what a step that was measured here would take with them.

The measured time of each operator is split as the fitted model splits it, into terms. A change
multiplies each term by powers of what is changed (`powers`), waiting by `cache` and all of it by
`rows` and `precision`, which the fitted model gave and which are kept with the row; all is 1 today.
`cores` counts those of this machine as 1; c, s and l say how its arithmetic, copies and waiting
grew with threads. The page of benchmarks computes the same, from the same powers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import log
from typing import Any

import numpy as np

from dlrm.errors import ConfigError, unknown
from dlrm.planning.costs import OTHER
from dlrm.planning.quantities import quantity

CHOICES = {"precision": ("fp32", "bf16", "int8"), "rows": ("fp32", "bf16", "int8", "int4")}
CACHES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Sizes of the last-level cache, times today's, whose multipliers are kept."""
CACHED = ("latency_ms", "transfer_ms")
"""Terms that a cache of another size changes."""
LEAST_GAIN = 1.03
NAMED = 2
"""Operators, and changes, that a verdict names."""


def powers(exponents: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the powers of a change by which each term of an operator is multiplied.

    `exponents` say how rates grew with cores, as in a row of results.
    """
    moved = {"bandwidth": -1.0, "cores": -exponents["stream"]}
    return {
        "calls_ms": {},
        "compute_ms": {"flops": -1.0, "cores": -exponents["compute"]},
        "stream_ms": moved,
        "latency_ms": {"latency": 1.0, "cores": -exponents["latency"]},
        "transfer_ms": moved,
    }


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
    """Number format of the MLPs' products; empty for as it is."""
    rows: str = ""
    """Numbers in the tables; empty for as they are."""

    def ms(self, operator: Mapping[str, Any], exponents: Mapping[str, float]) -> float:
        """Return what an operator of a row of the suites train and infer would take."""
        sizes, multipliers = zip(*operator["cache"], strict=True)
        cached = float(np.interp(log(self.cache), np.log(sizes), multipliers))
        ms = 0.0
        for term, changes in powers(exponents).items():
            part = operator["terms"][term] * (cached if term in CACHED else 1.0)
            for name, power in changes.items():
                part *= getattr(self, name) ** power
            ms += part
        precision = operator["precision"].get(self.precision, 1.0)
        return ms * precision * operator["rows"].get(self.rows, 1.0)

    def step_ms(self, row: Mapping[str, Any]) -> float:
        """Return what the step of a row would take."""
        return sum(self.ms(operator, row["exponents"]) for operator in row["operators"])

    def applied(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a change would make of the step of a row, JSON-ready."""
        ms = self.step_ms(row)
        return {
            "change": self.to_dict(),
            "step_ms": ms,
            "gain": row["step_ms"] / ms,
            "samples_per_s": row["batch_size"] / ms * 1e3,
            "model_error": row["model_error"],
            "error_here": abs(row["predicted_ms"] / row["step_ms"] - 1),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return what is changed, JSON-ready."""
        unchanged = asdict(WhatIf())
        return {name: value for name, value in asdict(self).items() if value != unchanged[name]}


MACHINES = {
    "twice the cores": WhatIf(cores=2.0),
    "twice the memory bandwidth": WhatIf(bandwidth=2.0),
    "half the memory latency": WhatIf(latency=0.5),
    "four times the last-level cache": WhatIf(cache=4.0),
    "twice the arithmetic of a core": WhatIf(flops=2.0),
}


def read(text: str, *, cores: int, copy: float, cache_bytes: int) -> WhatIf:
    """Read changes such as `bandwidth=2x,cores=4,cache=64MB,precision=int8`, against this machine.

    A value with an x is a factor; cores are counted, caches in bytes, a bandwidth in bytes a
    second.

    Raises:
        ConfigError: There is no such name or value; lists those there are.

    """
    changes: dict[str, float | str] = {}
    now = {"cores": float(cores), "bandwidth": copy, "cache": float(cache_bytes)}
    for word in text.split(","):
        name, equals, value = (part.strip() for part in word.partition("="))
        if name not in (names := [field.name for field in fields(WhatIf)]):
            raise unknown("what-if", name, names)
        if not equals or not value:
            raise ConfigError(f'what-if {name} has no value; write for example "{_example(name)}"')
        if name not in CHOICES:
            changes[name] = _factor(name, value, now.get(name))
        elif value in CHOICES[name]:
            changes[name] = value
        else:
            raise unknown(f"what-if {name}", value, CHOICES[name])
    return WhatIf(**changes)  # pyright: ignore[reportArgumentType]


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


@dataclass(frozen=True, slots=True)
class Change:
    """One change, and what the model says it would bring."""

    what: str
    how: str
    """The flag; `hardware` where it takes another machine."""
    gain: float
    """1.3 is 1.3 times as many samples a second."""


def machines(row: Mapping[str, Any]) -> list[Change]:
    """Return what other machines would bring for the step of a row."""
    now = WhatIf().step_ms(row)
    return [
        Change(what, "hardware", now / change.step_ms(row)) for what, change in MACHINES.items()
    ]


def more_threads(row: Mapping[str, Any], threads: int, cores: int) -> list[Change]:
    """Return what all cores would bring for the step of a row; calls take as long on any number."""
    if threads >= cores:
        return []
    gain = WhatIf().step_ms(row) / WhatIf(cores=cores / threads).step_ms(row)
    return [Change(f"all {cores} cores", f"--threads {cores}", gain)]


def best(changes: Sequence[Change]) -> list[Change]:
    """Return the changes that help at all, the best first."""
    helping = [change for change in changes if change.gain >= LEAST_GAIN]
    return sorted(helping, key=lambda change: -change.gain)


def off(error: float, here: float) -> str:
    """Say how far off the model is: in the median, and where it can be compared."""
    return f"by a model that is {error:.0%} off in the median, {here:.0%} here"


def verdict(row: Mapping[str, Any], changes: Sequence[Change], error: float) -> str:
    """Say in a sentence or two where the time goes, what holds it up, and what would help most.

    Changes come the best first; `error` is the median relative error of the model.
    """
    here = abs(row["predicted_ms"] / row["step_ms"] - 1)
    operators = sorted(row["operators"], key=lambda operator: -operator["ms"])
    where = "; ".join(map(_held_up, operators[:NAMED]))
    first = f"A step of {row['batch_size']:,} takes {row['step_ms']:.3g} ms: {where}."
    if not changes:
        return f"{first} No single change predicts more than {LEAST_GAIN - 1:.0%}."
    gains = " and ".join(
        f"{change.gain:.2f}x by {change.what}"
        + ("" if change.how == "hardware" else f" ({change.how})")
        for change in changes[:NAMED]
    )
    return f"{first} What would help most: {gains}, predicted {off(error, here)}."


def _held_up(operator: Mapping[str, Any]) -> str:
    if operator["name"] == OTHER:
        return f"{operator['share']:.0%} passes beside the operators"
    words = f"{operator['name']} takes {operator['share']:.0%}, bound by {operator['bound']}"
    share = operator["roofline_share"]
    return words + (
        f" ({share:.0%} of its roofline)" if operator["bound"] != "calls" and share else ""
    )
