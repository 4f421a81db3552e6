"""Measurements made ready to draw: finite, thinned and with a window that shows them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST = 150
"""Points of a line; more are averaged, since no screen shows more and the file stays small."""

LARGEST = 1e30
"""Larger values are counted as not finite: no axis tells them apart."""


@dataclass(frozen=True, slots=True)
class Line:
    """A measurement over x, in order."""

    label: str
    role: str
    """Role of the curve, which gives its colour."""
    x: Floats
    y: Floats
    low: Floats
    """Lowest value that each point stands for; equal to y when the line is not thinned."""
    high: Floats
    group: int = 1
    """How many measurements each point is the mean of."""
    dropped: int = 0
    """Measurements that were not finite, and are not drawn."""
    dashes: str = ""
    """Lengths of dashes and gaps, as SVG writes them; nothing for a solid line."""

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, slots=True)
class Level:
    """A value that is known beforehand, drawn as a dashed line across."""

    label: str
    role: str
    value: float


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the y axis that is shown."""

    low: float
    high: float
    log: bool = False
    hidden: int = 0
    """Points outside of it."""


def line(
    label: str,
    role: str,
    points: Iterable[tuple[float, float]],
    *,
    most: int = MOST,
    dashes: str = "",
) -> Line:
    """Return points as a line of at most `most` points, each the mean of equally many."""
    all_xy = np.asarray(list(points), dtype=np.float64).reshape(-1, 2)
    xy = all_xy[(np.abs(np.nan_to_num(all_xy, nan=math.inf)) <= LARGEST).all(axis=1)]
    group = max(1, math.ceil(len(xy) / most))
    starts = np.arange(0, len(xy), group)
    sizes = np.diff(np.append(starts, len(xy)))
    x, y = (np.add.reduceat(axis, starts) / sizes for axis in xy.T)
    low, high = (reduce.reduceat(xy[:, 1], starts) for reduce in (np.minimum, np.maximum))
    return Line(label, role, x, y, low, high, group, len(all_xy) - len(xy), dashes)


def window(lines: Sequence[Line], levels: Sequence[Level] = ()) -> Window:
    """Return the part of the y axis worth showing.

    The first steps of a training are often far away from all others; where they would flatten the
    rest to a line they are left outside, and counted.
    """
    known = np.asarray([level.value for level in levels if abs(level.value) <= LARGEST])
    everything = np.concatenate([*(line.y for line in lines), known])
    if not everything.size:
        return Window(0.0, 1.0)
    settled = np.concatenate([*map(_settled, lines), known])
    span, spread = np.ptp(everything), np.ptp(settled)
    shown = settled if spread > 0 and span > 4 * spread else everything
    low, high = float(shown.min()), float(shown.max())
    hidden = int(((everything < low) | (everything > high)).sum())
    if low > 0 and high / low > 30:
        return Window(low / 1.3, high * 1.3, True, hidden)
    pad = 0.07 * (high - low) or 0.05 * abs(high) or 0.5
    return Window(low - pad, high + pad, False, hidden)


def _settled(line: Line) -> Floats:
    """Return the y values after the first twentieth of a line that is long enough to have one."""
    if len(line) < 20:
        return line.y
    return line.y[line.x > line.x[0] + 0.05 * (line.x[-1] - line.x[0])]


def elapsed(times: Sequence[float]) -> list[float]:
    """Return seconds of training that only grow, also where a resumed run counts from zero."""
    total, before, grown = 0.0, 0.0, []
    for time in times:
        if time < before:
            total += before
        before = time if math.isfinite(time) else before
        grown.append(total + time)
    return grown
