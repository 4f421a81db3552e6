"""Measurements over the steps or the time of a training: made ready, and drawn."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlrm.reporting.charts.drawing import (
    COLOR,
    DASHES,
    Figure,
    Key,
    drawing,
    labels,
    level,
    line_style,
    logarithmic,
    ticks,
)
from dlrm.reporting.words import compact, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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


class Level(NamedTuple):
    """A value that is known beforehand, drawn as a dashed line across."""

    label: str
    role: str
    value: float


class Window(NamedTuple):
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
    late = [line.y if len(line) < 20 else line.y[len(line) // 20 + 1 :] for line in lines]
    settled = np.concatenate([*late, known])
    span, spread = np.ptp(everything), np.ptp(settled)
    shown = settled if spread > 0 and span > 4 * spread else everything
    low, high = float(shown.min()), float(shown.max())
    hidden = int(((everything < low) | (everything > high)).sum())
    if low > 0 and high / low > 30:
        return Window(low / 1.3, high * 1.3, True, hidden)
    pad = 0.07 * (high - low) or 0.05 * abs(high) or 0.5
    return Window(low - pad, high + pad, False, hidden)


def curves(
    name: str,
    title: str,
    lines: Sequence[Line],
    unit: str,
    levels: Sequence[Level] = (),
    ring: tuple[float, float] | None = None,
    note: str = "",
) -> Figure:
    """Return a figure of measurements over the steps of a training, `ring` around a best one."""
    drawable = [line for line in lines if len(line)]
    if not drawable:
        return Figure(title, "no step with a finite value was logged yet")
    shown = window(drawable, levels)
    with drawing(name, title) as (figure, ax):
        scale(ax, shown, drawable)
        for known in levels:
            level(ax, known.value, known.role)
        for line in drawable:
            draw_line(ax, line)
        if ring is not None:
            ax.plot(*ring, "o", ms=9, mfc="none", mec=COLOR["ink"], mew=1.3, clip_on=False)
            note += f" The ring is the best checkpoint, step {number(int(ring[0]))}."
        labels(ax, "training step", unit)
        keys = [Key(known.label, known.role, dashes=DASHES[known.role]) for known in levels]
        figure.legend = [*line_keys(drawable), *keys]
        figure.note = f"{note} {line_note(lines, shown.hidden)}".strip()
    return figure


def line_keys(lines: Sequence[Line]) -> list[Key]:
    """Return entries of a legend for lines; lines of one label share one."""
    first = {line.label: line for line in reversed(lines)}
    order = [first[label] for label in dict.fromkeys(line.label for line in lines)]
    marks = {"test": "diamond"}
    return [Key(line.label, line.role, marks.get(line.role, "line"), line.dashes) for line in order]


def line_note(lines: Sequence[Line], hidden: int = 0) -> str:
    """Say what a reader could not see from drawn lines alone."""
    sentences = []
    groups = max((line.group for line in lines), default=1)
    if groups > 1:
        sentences.append(
            f"Each point is the mean of {groups} measurements; the band holds them all."
        )
    if hidden:
        points = "points are" if hidden > 1 else "point is"
        sentences.append(f"{compact(hidden)} early {points} outside of the frame.")
    if dropped := sum(line.dropped for line in lines):
        what, are = ("measurement", "is") if dropped == 1 else ("measurements", "are")
        sentences.append(f"{compact(dropped)} {what} {are} not finite and {are} not drawn.")
    return " ".join(sentences)


def draw_line(ax: "Axes", line: Line) -> None:
    """Draw a measurement, and a band where its points are means of many."""
    color, of_test = COLOR[line.role], line.role == "test"
    if line.group > 1:
        ax.fill_between(line.x, line.low, line.high, color=color, alpha=0.18, lw=0)
    marker = "" if len(line) > 40 else "D" if of_test else "o"
    size = 4.5 if of_test else 3.2
    ax.plot(line.x, line.y, color=color, marker=marker, ms=size, ls=line_style(line.dashes))


def scale(ax: "Axes", shown: Window, lines: Sequence[Line]) -> None:
    """Let axes begin and end with the lines, and show this part of y."""
    start, end = min(line.x.min() for line in lines), max(line.x.max() for line in lines)
    # A single point stands in the middle; otherwise the axis starts where the training did
    left, right = (0.0, 2.0 * end or 1.0) if start == end else (min(0.0, start), end)
    ax.set_xlim(left, right + 0.02 * (right - left))
    ticks(ax.xaxis, compact)
    if shown.log:
        logarithmic(ax.yaxis, subs=(1.0,) if shown.high / shown.low > 300 else (1.0, 2.0, 5.0))
    else:
        ticks(ax.yaxis, most=6)
    ax.set_ylim(shown.low, shown.high)
