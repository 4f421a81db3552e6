"""Measurements over the steps or the time of a training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlrm.reporting.charts.drawing import (
    DASHES,
    drawing,
    labels,
    round_down,
    shares,
    stand_in,
    svg,
    tick,
)
from dlrm.reporting.series import Level, Line, Window, window
from dlrm.reporting.words import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def curves(
    name: str,
    title: str,
    lines: Sequence[Line],
    levels: Sequence[Level] = (),
    *,
    x_label: str = "training step",
    y_label: str,
    mark: tuple[float, float] | None = None,
) -> str:
    """Draw measurements over the steps of a training.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        lines: At least one, each with a point or more.
        levels: Known values, dashed across.
        x_label: What x counts.
        y_label: What y is, with its unit.
        mark: A point to put a ring around, e.g. the best one.

    """
    with drawing() as (figure, (ax,)):
        shown = window(lines, levels)
        _scale(ax, shown, lines)
        for line in levels:
            ax.axhline(line.value, color=stand_in(line.role), ls=DASHES[line.role], lw=1.4)
        for line in lines:
            _line(ax, line)
        if mark is not None:
            ax.plot(*mark, "o", ms=9, mfc="none", mec=stand_in("ink"), mew=1.3, clip_on=False)
        labels(ax, x_label, y_label)
        return svg(figure, name, title)


def throughput(name: str, title: str, speed: Line, waiting: Line, *, x_label: str) -> str:
    """Draw samples a second over time, and below it the share of time spent on loading."""
    with drawing(2 if len(waiting) else 1) as (figure, axes):
        top = float(speed.y.max()) * 1.12 or 1.0
        _scale(axes[0], Window(0.0, top), [speed])
        _line(axes[0], speed)
        labels(axes[0], "", "samples per second")
        if len(waiting):
            below, most = axes[1], max(float(waiting.y.max()) * 1.25, 0.01)
            _scale(below, Window(0.0, most), [speed])
            below.fill_between(waiting.x, waiting.y, color=stand_in("train"), alpha=0.35, lw=0)
            _line(below, waiting)
            shares(below.yaxis)
            below.set_yticks([0.0, round_down(most)])
            labels(below, "", "time spent waiting for data")
        axes[-1].set_xlabel(x_label, loc="right")
        return svg(figure, name, title)


def _line(ax: "Axes", line: Line) -> None:
    color = stand_in(line.role)
    if line.group > 1:
        ax.fill_between(line.x, line.low, line.high, color=color, alpha=0.18, lw=0)
    marker = "" if len(line) > 40 else "D" if line.role == "test" else "o"
    ax.plot(
        line.x,
        line.y,
        color=color,
        marker=marker,
        ms=4.5 if line.role == "test" else 3.2,
        ls=(0, (4, 1.5)) if line.dashed else "-",
    )


def _scale(ax: "Axes", shown: Window, lines: Sequence[Line]) -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter

    start, end = min(line.x.min() for line in lines), max(line.x.max() for line in lines)
    # A single point stands in the middle; otherwise the axis starts where the training did
    left, right = (0.0, 2.0 * end or 1.0) if start == end else (min(0.0, start), end)
    ax.set_xlim(left, right + 0.02 * (right - left))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(lambda value, _: compact(value))
    if shown.log:
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.yaxis.set_major_formatter(lambda value, _: compact(value))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        ax.yaxis.set_major_formatter(lambda value, _: tick(value, ax.yaxis))
    ax.set_ylim(shown.low, shown.high)
