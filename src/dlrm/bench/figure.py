"""What a row of results says: what was measured, and the figures that were found.

Rows of every suite are read by the names of their keys, so that a new suite needs nothing here:

    figure     ends in `_ms` or `_s` (less is better) or `per_s` (more is better); `auc_change`
    interval   `NAME_interval`, or `NAME_low` and `NAME_high`, around the figure `NAME_ms`
    setting    any other text or whole number, where it is neither provenance nor a finding
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

from dlrm.bench.results import PROVENANCE

Kind = Literal["time", "rate", "accuracy"]
"""Less is better; more is better; more is better, and it is the difference that counts."""

PEERS = ("original", "bags", "fbgemm", "torchrec", "deepctr", "fuxictr")
"""Whose figures stand beside ours: what they take says something of the machine, not of us."""

_COMPUTED = ("roofline_", "predicted_", "planned_", "published_", "full_rates_")
"""Figures of a model, not of a clock, begin like this."""
_BOUNDS = ("_low_s", "_high_s", "_low_ms", "_high_ms")

_NAMED = ("rows_scale", "pooling", "optim")
"""Settings even where they are fractions or say several things."""
_FOUND = frozenset((
    "rounds", "seeds", "verdict", "bound", "error", "holds", "met", "pareto", "changes", "page",
    "exponents", "facts", "ceilings", "costs", "values", "warning", "reason",
    "what_if", "model_steps",
))  # fmt: skip
_FOUND_LIKE = ("_verdict", "_bytes", "_share", "_min", "_low", "_high", "_per_sample", "_way")
_OF_OPS = ("flops", "bytes", "lines")
_OF_A_STEP = ("steps", "loading_epoch_rows")
"""Findings of a whole round, while figures are of one step."""
_OF_A_LOAD = ("requests", "failed", "cut")
_FOUND_BY = {
    "ops": _OF_OPS,
    "train": _OF_A_STEP,
    "infer": _OF_A_STEP,
    "embedding": _OF_A_STEP,
    "serve": _OF_A_LOAD,
}
"""Suite -> findings whose names are settings elsewhere."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its 95% interval, where the row says one."""

    value: float
    low: float | None = None
    high: float | None = None
    kind: Kind = "time"


def settings(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row is a measurement of: its suite, the threads, and what was set."""
    suite = row["suite"]
    identity = {"suite": suite}
    for name, value in row.items():
        if value is None or name in ("suite", *_FOUND_BY.get(suite, ())):
            continue
        provenance = name in PROVENANCE and name != "threads"
        # Rows of before there were schemas could have a key of the same name.
        if provenance and not (name == "machine" and "schema" not in row):
            continue
        if name in _NAMED or (_is_setting(value) and not _is_finding(name)):
            identity[name] = value
    return identity


def key(row: Mapping[str, Any]) -> str:
    """Return the settings of a row as one text; rows with an equal one are repeats."""
    return json.dumps(settings(row), sort_keys=True)


def figures(row: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the measured figures of a row, without those that say another one again."""
    if isinstance(row.get("ceilings"), Mapping):
        return _ceilings(row["ceilings"])
    by_name = {}
    for name, value in row.items():
        if (kind := _kind(name)) is not None and _is_number(value):
            by_name[name] = Figure(float(value), *_interval(row, name), kind)
    if any(figure.kind == "time" and figure.low is not None for figure in by_name.values()):
        # Samples/s of a step, whose time has an interval.
        return {
            n: figure
            for n, figure in by_name.items()
            if figure.kind != "rate" or figure.low is not None
        }
    return by_name


def operators(row: Mapping[str, Any]) -> dict[str, Figure]:
    """Return the times of the operators that a step is made of, in milliseconds."""
    return {
        operator["name"]: Figure(float(operator["ms"]), *_interval(operator, "ms"))
        for operator in row.get("operators") or ()
        if isinstance(operator, Mapping) and "name" in operator and _is_number(operator.get("ms"))
    }


def _kind(name: str) -> Kind | None:
    if name == "auc_change":
        return "accuracy"
    if name in PROVENANCE or name.startswith(_COMPUTED) or name.endswith(_BOUNDS):
        return None
    if name.endswith("per_s"):
        return "rate"
    return "time" if name in ("ms", "s") or name.endswith(("_ms", "_s")) else None


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_setting(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(part, (str, int)) for part in value)
    return isinstance(value, (str, int))


def _is_finding(name: str) -> bool:
    return name in _FOUND or name.endswith(_FOUND_LIKE) or _kind(name) is not None


def _interval(row: Mapping[str, Any], name: str) -> tuple[float, float] | tuple[None, None]:
    """Return the interval that a row says around a figure."""
    base, _, unit = name.rpartition("_")
    pairs = [(row.get(f"{start}_low"), row.get(f"{start}_high")) for start in (base, name)]
    pairs.append((row.get(f"{base}_low_{unit}"), row.get(f"{base}_high_{unit}")))
    for both in (row.get(f"{base}_interval"), row.get(f"{name}_interval")):
        if isinstance(both, list) and len(both) == 2:
            pairs.append((both[0], both[1]))
    for low, high in pairs:
        # One round has no spread: its interval would be a point.
        if _is_number(low) and _is_number(high) and low < high:
            return float(low), float(high)
    return None, None


def _ceilings(ceilings: Mapping[str, Any]) -> dict[str, Figure]:
    """Return what a machine could do, by the names that `spread` has for it: `fp32 2`, `call`."""
    threads, spread = ceilings.get("threads"), ceilings.get("spread") or {}
    points = [
        (point["row_bytes"], point["table_bytes"], point["row_s"])
        for point in ceilings.get("gather") or ()
    ]
    by_kind: dict[Kind, dict[str, Any]] = {
        "rate": {f"copy {n}": rate for n, rate in (ceilings.get("copy") or {}).items()},
        "time": {f"gather {row} {table} {threads}": seconds for row, table, seconds in points},
    }
    for name, rates in (ceilings.get("flops") or {}).items():
        by_kind["rate"] |= {f"{name} {n}": rate for n, rate in rates.items()}
    if points:
        # The shortest rows of the largest table; with all threads they are among the points.
        at = f"{min(points)[0]} {max(table for _, table, _ in points)}"
        by_threads = ceilings.get("gather_by_threads") or {}
        by_kind["rate"] |= {f"gather {at} {n}": rate for n, rate in by_threads.items()}
    by_kind["time"]["call"] = ceilings.get("call_s")
    figures: dict[str, Figure] = {}
    for kind, values in by_kind.items():
        for name, value in values.items():
            if _is_number(value) and name not in figures:
                share = spread.get(name) or 0.0
                bounds = (value * (1 - share), value * (1 + share)) if share else (None, None)
                figures[f"{name}_s" if kind == "time" else name] = Figure(value, *bounds, kind)
    return figures
