"""The one timer: interleaves candidates, and gives medians, intervals and verdicts.

Scripts only set up; see RULES.md.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dlrm.training.environment import environment

RESAMPLES = 2000


@dataclass(frozen=True)
class Timing:
    """Seconds of one candidate, a value a round."""

    name: str
    seconds: list[float]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def interval(self) -> tuple[float, float]:
        """95% bootstrap interval of the median."""
        rng = np.random.default_rng(0)
        draws = rng.choice(self.seconds, (RESAMPLES, len(self.seconds)))
        low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
        return float(low), float(high)


def interleave(
    candidates: Mapping[str, Callable[[], Any]], *, rounds: int, warmup: int = 1
) -> dict[str, Timing]:
    """Run every candidate once a round, in an order that turns, and return their seconds."""
    for _ in range(warmup):
        for run in candidates.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            started = time.perf_counter()
            candidates[name]()
            seconds[name].append(time.perf_counter() - started)
    return {name: Timing(name, values) for name, values in seconds.items()}


def ratio(a: Timing, b: Timing) -> tuple[float, float, float]:
    """Return the median of a's seconds over b's, round by round, and its 95% interval."""
    values = np.array(a.seconds) / np.array(b.seconds)
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (RESAMPLES, len(values))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def verdict(a: Timing, b: Timing) -> str:
    """Say which is faster and by how much, or that nothing can be said."""
    middle, low, high = ratio(a, b)
    if low <= 1.0 <= high:
        return f"no verdict: {a.name} takes {middle:.3f} ({low:.3f} to {high:.3f}) of {b.name}"
    word = "faster" if high < 1.0 else "slower"
    return f"{a.name} is {word}: {middle:.3f} ({low:.3f} to {high:.3f}) of the time of {b.name}"


def save(suite: str, results: Mapping[str, Any], out: Path | None = None) -> Path:
    """Append a result as one JSON line to results/<hardware>/<date>-<suite>.jsonl."""
    machine = environment()
    hardware = f"{machine['cpu']}-{machine['cores']}-cores".lower().replace(" ", "-")
    folder = Path(__file__).parent / "results" / hardware
    path = out or folder / f"{datetime.now(UTC):%Y-%m-%d}-{suite}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {
        "suite": suite,
        **results,
        "commit": _commit(),
        "load": os.getloadavg()[0],
        **{key: machine[key] for key in ("dlrm", "python", "torch", "numpy", "polars", "cpu")},
        "cores": machine["cores"],
        "system": platform.system(),
    }
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    return path


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
