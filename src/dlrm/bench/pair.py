"""Rows of two files that measure the same, figure by figure.

Where intervals overlap there is no verdict. Several rows of one file are repeats, whose spread
counts too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import Any, Literal

from dlrm.bench.figure import PEERS, Figure, figures, operators, settings

Row = Mapping[str, Any]
Verdict = Literal["slower", "faster", "worse", "better", "no verdict"]


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure in both files."""

    name: str
    before: Figure
    after: Figure

    @property
    def ratio(self) -> tuple[float | None, float | None, float | None]:
        """After over before, and what is possible within both intervals; None where unknown."""
        a, b = self.before, self.after
        return _over(b.value, a.value), _over(b.low, a.high), _over(b.high, a.low)

    @property
    def slowdown(self) -> float:
        """How many times as long it takes; 1 where that is unknown, or no matter of time."""
        ratio = self.ratio[0]
        if not ratio or self.before.kind == "accuracy":
            return 1.0
        return ratio if self.before.kind == "time" else 1 / ratio

    @property
    def verdict(self) -> Verdict:
        """What the intervals say."""
        a, b = self.before, self.after
        if a.low is None or a.high is None or b.low is None or b.high is None:
            return "no verdict"
        if a.low <= b.high and b.low <= a.high:
            return "no verdict"
        grew = b.low > a.high
        if a.kind == "accuracy":
            return "better" if grew else "worse"
        return "slower" if grew == (a.kind == "time") else "faster"

    @property
    def of_peer(self) -> bool:
        """Whether it is the figure of another program, measured beside ours."""
        return self.name.startswith(PEERS)

    @property
    def of_tail(self) -> bool:
        """Whether it is a percentile of the slowest rounds, of which there are too few to judge."""
        return self.name.removesuffix("_ms").endswith("p95")

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison JSON-ready."""
        a, b = self.before, self.after
        ratio, low, high = self.ratio
        return {
            "figure": self.name,
            "before": a.value,
            "before_interval": None if a.low is None else [a.low, a.high],
            "after": b.value,
            "after_interval": None if b.low is None else [b.low, b.high],
            "difference": b.value - a.value,
            "ratio": ratio,
            "ratio_interval": None if low is None or high is None else [low, high],
            "verdict": self.verdict,
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """All rows of both files that measure the same."""

    settings: dict[str, Any]
    figures: tuple[Compared, ...]
    operators: tuple[Compared, ...]
    """That the step is made of, in milliseconds; the longest first."""
    failed: tuple[str | None, str | None]
    """Why it could not be measured, before and after."""
    repeats: tuple[int, int]

    @property
    def cause(self) -> tuple[Compared, float] | None:
        """The operator that changed most in the way of the step, and its share of the change."""
        changes = {each.name: each.after.value - each.before.value for each in self.operators}
        whole = sum(changes.values())
        if not whole:
            return None
        most = max(self.operators, key=lambda each: changes[each.name] / whole)
        return most, changes[most.name] / whole


def pair(before: Sequence[Row], after: Sequence[Row]) -> Pair:
    """Compare the rows of one setting, each file's at least one."""

    def compared(of: Callable[[Row], Mapping[str, Figure]]) -> list[Compared]:
        a, b = ([of(row) for row in rows] for rows in (before, after))
        # In the order of the rows that say most, whichever comes first in the file.
        by_figures = sorted(a, key=lambda found: (-len(found), *found))
        return [
            Compared(name, x, y)
            for name in dict.fromkeys(name for found in by_figures for name in found)
            if (x := _joined(a, name)) and (y := _joined(b, name))
        ]

    def failed(rows: Sequence[Row]) -> str | None:
        errors = [row.get("error") for row in rows]
        reasons = sorted(each for each in errors if isinstance(each, str))
        return reasons[0] if len(reasons) == len(rows) else None

    return Pair(
        settings=settings(before[0]),
        figures=tuple(compared(figures)),
        operators=tuple(sorted(compared(operators), key=lambda each: -each.before.value)),
        failed=(failed(before), failed(after)),
        repeats=(len(before), len(after)),
    )


def _joined(repeats: Sequence[Mapping[str, Figure]], name: str) -> Figure | None:
    """Return a figure of all repeats: the middle one, and the spread of all intervals."""
    found = [each[name] for each in repeats if name in each]
    if len(found) < 2:
        return found[0] if found else None
    return Figure(
        median(each.value for each in found),
        min(each.value if each.low is None else each.low for each in found),
        max(each.value if each.high is None else each.high for each in found),
        found[0].kind,
    )


def _over(a: float | None, b: float | None) -> float | None:
    if a is None or b is None or b <= 0 or a < 0:
        return None
    return a / b if isfinite(a / b) else None
