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
    round_down,
    shares,
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
    """Draw measurements over the steps of a training.

    Args:
        name: A name of its own within the page.
        lines: At least one, each with a point or more.
        levels: Known values, dashed across.
        y_label: What y is, with its unit.
        mark: A point to put a ring around, e.g. the best one.

    """
    with drawing(name) as drawn:
        (ax,) = drawn.axes
        _scale(ax, window(lines, levels), lines)
        for known in levels:
            level(ax, known.value, known.role)
        for line in lines:
            _line(ax, line)
        if mark is not None:
            ax.plot(*mark, "o", ms=9, mfc="none", mec=COLOR["ink"], mew=1.3, clip_on=False)
        labels(ax, "training step", y_label)
    return drawn.svg


def throughput(name: str, speed: Line, waiting: Line, *, x_label: str) -> str:
    """Draw samples a second over time, and below it the share of time spent on loading."""
    with drawing(name, rows=2 if len(waiting) else 1) as drawn:
        ax, below = drawn.axes[0], drawn.axes[-1]
        _scale(ax, Window(0.0, float(speed.y.max()) * 1.12 or 1.0), [speed])
        _line(ax, speed)
        labels(ax, "", "samples per second")
        if len(waiting):
            most = max(float(waiting.y.max()) * 1.25, 0.01)
            _scale(below, Window(0.0, most), [speed])
            below.fill_between(waiting.x, waiting.y, color=COLOR["train"], alpha=0.35, lw=0)
            _line(below, waiting)
            shares(below.yaxis)
            below.set_yticks([0.0, round_down(most)])
            labels(below, "", "time spent waiting for data")
        below.set_xlabel(x_label, loc="right")
    return drawn.svg


def differences(name: str, lines: Sequence[Line], tolerance: float, none: float) -> str:
    """Draw differences of losses over the steps by their power of ten.

    Args:
        name: A name of its own within the page.
        lines: At least one, of positive numbers.
        tolerance: What none should exceed, dashed across; not drawn if 0.
        none: What stands for no difference at all.

    """

    def text(value: float) -> str:
        return "0" if value < 1.5 * none else f"{value:.0e}".replace("e-0", "e-")

    with drawing(name) as drawn:
        (ax,) = drawn.axes
        ends = [float(end) for line in lines for end in (line.y.min(), line.y.max())]
        if tolerance > 0:
            level(ax, tolerance, "baseline")
            ends.append(tolerance)
        _scale(ax, Window(min(ends) / 2, max(ends) * 4), lines)
        logarithmic(ax.yaxis, text)
        for line in lines:
            ax.plot(line.x, line.y, color=COLOR[line.role], lw=1.4)
        labels(ax, "training step", "difference of the loss")
    return drawn.svg


def _line(ax: "Axes", line: Line) -> None:
    color, of_test = COLOR[line.role], line.role == "test"
    if line.group > 1:
        ax.fill_between(line.x, line.low, line.high, color=color, alpha=0.18, lw=0)
    marker = "" if len(line) > 40 else "D" if of_test else "o"
    size = 4.5 if of_test else 3.2
    ax.plot(line.x, line.y, color=color, marker=marker, ms=size, ls=line_style(line.dashes))


def _scale(ax: "Axes", shown: Window, lines: Sequence[Line]) -> None:
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
