"""The one timer: interleaves candidates, and gives medians, intervals and verdicts.

Benchmarks only set up; benchmarks/RULES.md says how figures are taken.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.bench import results

RESAMPLES = 2000
"""Of the bootstrap."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one candidate, a value a round."""

    name: str
    seconds: list[float]

    @property
    def median(self) -> float:
        """The middle round."""
        return float(np.median(self.seconds))

    @property
    def least(self) -> float:
        """The fastest round."""
        return min(self.seconds)

    @property
    def interval(self) -> tuple[float, float]:
        """95% bootstrap interval of the median."""
        return _interval(np.array(self.seconds))

    def per(self, steps: int) -> "Timing":
        """Return the timing of one of `steps` equal steps that a round was made of."""
        return Timing(self.name, [seconds / steps for seconds in self.seconds])


def interleave(
    candidates: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    after_round: Callable[[], Any] | None = None,
) -> dict[str, Timing]:
    """Run every candidate once a round, in an order that turns, and return their seconds.

    Args:
        candidates: Name -> what is timed.
        rounds: Timed rounds.
        warmup: Rounds before them, not timed.
        clock: Seconds, as time.perf_counter gives them.
        after_round: Called between timed rounds, e.g. to advance a progress bar.

    """
    for _ in range(warmup):
        for run in candidates.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            started = clock()
            candidates[name]()
            seconds[name].append(clock() - started)
        if after_round is not None:
            after_round()
    return {name: Timing(name, values) for name, values in seconds.items()}


def ratio(a: Timing, b: Timing) -> tuple[float, float, float]:
    """Return the median of a's seconds over b's, round by round, and its 95% interval."""
    values = np.array(a.seconds) / np.array(b.seconds)
    return float(np.median(values)), *_interval(values)


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (RESAMPLES, len(values))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return float(low), float(high)


def verdict(a: Timing, b: Timing) -> str:
    """Say which is faster and by how much, or that nothing can be said."""
    middle, low, high = ratio(a, b)
    if low <= 1.0 <= high:
        return f"no verdict: {a.name} takes {middle:.3f} ({low:.3f} to {high:.3f}) of {b.name}"
    word = "faster" if high < 1.0 else "slower"
    return f"{a.name} is {word}: {middle:.3f} ({low:.3f} to {high:.3f}) of the time of {b.name}"


def figures(timing: Timing) -> dict[str, Any]:
    """Return the figures of a candidate in milliseconds, their keys beginning with its name."""
    low, high = timing.interval
    return {
        f"{timing.name}_ms": timing.median * 1e3,
        f"{timing.name}_ms_min": timing.least * 1e3,
        f"{timing.name}_interval": [low * 1e3, high * 1e3],
    }


def machine() -> dict[str, Any]:
    """Return what `results.machine` does; until its callers ask there."""
    return results.machine()


def peak_bytes(process: int | None = None) -> int:
    """Return the most memory that a process has had in its life so far; 0 where nobody tells.

    Args:
        process: Its number; None for this one.

    """
    path = Path("/proc") / ("self" if process is None else str(process)) / "status"
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def save(suite: str, values: Mapping[str, Any], out: Path | None = None) -> Path:
    """Append one row as `results.save` does; until its callers say so."""
    return results.save([results.row(suite, values)], out)
