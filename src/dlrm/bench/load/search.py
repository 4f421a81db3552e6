"""The largest rate that a system holds, by bisection with few runs, and how sure that is.

    rates rise until one is too much, the gap is halved, what is left is measured again

`measure(rate, seed)` says whether a rate was held, and is as noisy as a short run is: near the
limit it says yes and no. So the answer is one that was held every time, or that there is none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt
from typing import Literal

GROW = 1.3
"""Factor between rates until one is too much."""
TOLERANCE = 0.05
"""Gap between a rate that is held and one that is not, as a share, at which the search ends."""
REPEATS = 2
"""Times that the answer is measured again, each with other arrivals."""

Verdict = Literal["held", "no verdict", "not held", "not exceeded"]
"""The rate was held in all its runs, and a larger one was not; it was held in some runs and not in
others; no rate was held; no rate was too much, up to the most that could be offered."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A run of a search."""

    rate: float
    held: bool


@dataclass(slots=True)
class Search:
    """A search, and what came out."""

    trials: list[Trial] = field(default_factory=list)

    def low(self) -> float | None:
        """Return the largest rate that was held whenever it was tried, below all that was not."""
        broken = self.high()
        rates = [t.rate for t in self.trials if t.held and (broken is None or t.rate < broken)]
        return max(rates, default=None)

    def high(self) -> float | None:
        """Return the smallest rate that was not held."""
        return min((trial.rate for trial in self.trials if not trial.held), default=None)

    def runs(self, rate: float | None) -> int:
        """Return how often a rate was tried."""
        return sum(trial.rate == rate for trial in self.trials)

    @property
    def verdict(self) -> Verdict:
        """What the runs say."""
        low, high = self.low(), self.high()
        if low is None:
            several = any(trial.held for trial in self.trials)
            return "no verdict" if several else "not held"
        if self.runs(low) <= REPEATS:
            return "no verdict"
        return "not exceeded" if high is None else "held"


def search(
    measure: Callable[[float, int], bool], start: float, *, most: float, runs: int
) -> Search:
    """Return the search for the largest rate that is held.

    Args:
        measure: Says whether a rate was held; the second argument is another one each time.
        start: Rate to begin with.
        most: Largest rate that can be offered.
        runs: Runs at most, of which the last ones repeat the answer.

    """
    done = Search()

    def attempt(rate: float) -> bool:
        held = measure(rate, len(done.trials))
        done.trials.append(Trial(rate, held))
        return held

    rate = min(start, most)
    while len(done.trials) < runs:
        low, high = done.low(), done.high()
        if low is not None and (
            low >= most
            or (high is not None and high / low <= 1 + TOLERANCE)
            or runs - len(done.trials) <= REPEATS + 1 - done.runs(low)
        ):
            # The answer, if it is one: a run that breaks it makes the search go on below.
            if done.runs(low) > REPEATS:
                break
            rate = low
        elif low is None:
            rate = rate if high is None else high / 2
        elif high is None:
            rate = min(low * GROW, most)
        else:
            rate = sqrt(low * high)
        attempt(rate)
    return done
