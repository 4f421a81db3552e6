"""Measurements over the steps or the time of a training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlrm.reporting.charts.drawing import (
    COLOR,
    drawing,
    labels,
    level,
    line_style,
    logarithmic,
    ticks,
)
from dlrm.reporting.series import Level, Line, Window, window
from dlrm.reporting.words import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def curves(
    name: str,
    lines: Sequence[Line],
    levels: Sequence[Level] = (),
    *,
    y_label: str,
    mark: tuple[float, float] | None = None,
) -> str:
    """Draw measurements over the steps of a training, with a ring around the point `mark`."""
    with drawing(name) as drawn:
        ax = drawn.axes[0]
        scale(ax, window(lines, levels), lines)
        for known in levels:
            level(ax, known.value, known.role)
        for line in lines:
            draw_line(ax, line)
        if mark is not None:
            ax.plot(*mark, "o", ms=9, mfc="none", mec=COLOR["ink"], mew=1.3, clip_on=False)
        labels(ax, "training step", y_label)
    return drawn.svg


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
