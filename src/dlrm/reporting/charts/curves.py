"""Measurements over the steps or the time of a training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlrm.reporting.charts.drawing import (
    COLOR,
    DASHES,
    drawing,
    labels,
    level,
    line_style,
    logarithmic,
    ticks,
)
from dlrm.reporting.page import Figure, Key
from dlrm.reporting.series import Level, Line, Window, window
from dlrm.reporting.words import compact, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
        return Figure(title, "", "no step with a finite value was logged yet")
    shown = window(drawable, levels)
    with drawing(name) as drawn:
        ax = drawn.axes[0]
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
    note = f"{note} {line_note(lines, shown.hidden)}".strip()
    return Figure(title, drawn.svg, note, [*line_keys(drawable), *keys])


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
