"""The one timer: interleaves candidates, and gives percentiles, intervals and verdicts.

Benchmarks only set up; benchmarks/RULES.md says how figures are taken. `watch.py` says what else
the machine did meanwhile, `results.py` keeps the figures.
"""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")

RESAMPLES = 2000
"""Resamples of the bootstrap."""
ROUND_SAMPLES = 65_536
"""Samples of a round: some tenths of a second, so that a round is more than a moment's luck."""
MOST_STEPS = 200


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

    def percentile(self, q: float) -> tuple[float, float, float]:
        """Return the q-th percentile of the rounds, 0 to 100, and its 95% bootstrap interval.

        A round that is made of several steps counts as one: what a single slow step took is lost
        in it. And few rounds know little of their tail: of 11, the 95th lies between the two
        slowest.
        """
        values = np.array(self.seconds)
        return float(np.percentile(values, q)), *_interval(values, q)

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
    before: Mapping[str, Callable[[], Any]] | None = None,
) -> dict[str, Timing]:
    """Run every candidate once a round, in an order that turns, and return their seconds.

    Args:
        candidates: Name -> what is timed.
        rounds: Timed rounds.
        warmup: Rounds before them, not timed.
        clock: Seconds, as time.perf_counter gives them.
        after_round: Called between timed rounds, e.g. to advance a progress bar.
        before: Name of a candidate -> called each time before it, not timed.

    """
    before = before or {}
    for _ in range(warmup):
        for run in candidates.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            if name in before:
                before[name]()
            started = clock()
            candidates[name]()
            seconds[name].append(clock() - started)
        if after_round is not None:
            after_round()
    return {name: Timing(name, values) for name, values in seconds.items()}


def in_turn(run: Callable[[T], Any], inputs: Sequence[T], steps: int) -> Callable[[], None]:
    """Return a round: each call goes on with the next inputs, from the first after the last."""
    endless = cycle(inputs)

    def several() -> None:
        for given in islice(endless, steps):
            run(given)

    return several


def steps_of(
    run: Callable[[T], Any], inputs: Sequence[T], round_s: float, most: int, least: int = 1
) -> int:
    """Return how many steps a round of so many seconds has, after a first one, which is slow."""
    run(inputs[0])
    began = time.perf_counter()
    run(inputs[-1])
    once_s = max(time.perf_counter() - began, 1e-9)
    return max(least, min(most, math.ceil(round_s / once_s)))


def round_steps(batch_size: int) -> int:
    """Return how many steps of a batch size a round has."""
    return max(2, min(MOST_STEPS, ROUND_SAMPLES // batch_size))


def ratio(a: Timing, b: Timing) -> tuple[float, float, float]:
    """Return the median of a's seconds over b's, round by round, and its 95% interval."""
    values = np.array(a.seconds) / np.array(b.seconds)
    return float(np.median(values)), *_interval(values)


def _interval(values: NDArray[np.float64], q: float = 50.0) -> tuple[float, float]:
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    middles = np.median(drawn, axis=1) if q == 50.0 else np.percentile(drawn, q, axis=1)
    low, high = np.quantile(middles, [0.025, 0.975])
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
    p95, p95_low, p95_high = timing.percentile(95)
    return {
        f"{timing.name}_ms": timing.median * 1e3,
        f"{timing.name}_ms_min": timing.least * 1e3,
        f"{timing.name}_interval": [low * 1e3, high * 1e3],
        f"{timing.name}_p95_ms": p95 * 1e3,
        f"{timing.name}_p95_interval": [p95_low * 1e3, p95_high * 1e3],
    }


def beside(ours: Timing, peer: Timing, prefix: str = "") -> dict[str, Any]:
    """Return how much faster ours is than a peer, its interval, and the verdict in words."""
    middle, low, high = ratio(peer, ours)
    return {
        f"{prefix}speedup": middle,
        f"{prefix}speedup_interval": [low, high],
        f"{prefix}verdict": verdict(ours, peer),
    }


def peak_bytes(process: int | None = None) -> int:
    """Return the most memory that a process, or this one, has had so far; 0 where nobody tells."""
    path = Path("/proc") / ("self" if process is None else str(process)) / "status"
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
