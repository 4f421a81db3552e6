"""Dots: models beside each other, changes with their intervals, one measure against another."""

from collections.abc import Sequence
from typing import NamedTuple

from dlrm.reporting.charts.drawing import (
    COLOR,
    HIGH,
    TALL,
    callouts,
    clipped,
    diagonal,
    drawing,
    labels,
    level,
    logarithmic,
    ticks,
)
from dlrm.reporting.words import compact


class Row(NamedTuple):
    """Values on a line of their own."""

    label: str
    values: tuple[float, ...]
    role: str = "model"
    """Its colour."""


class Dot(NamedTuple):
    """What was tried: its bytes, and what they cost."""

    label: str
    size_bytes: float
    value: float
    role: str
    """Its colour."""
    best: bool
    """Whether no other is better in both; those are joined by a line."""
    low: float = 0.0
    """Ends of the interval of the value."""
    high: float = 0.0


def rows(name: str, models: Sequence[Row], best: float | None = None, *, x_label: str) -> str:
    """Draw the values of each model, a dot a run, with their mean; what is best possible dashed."""
    with drawing(name, 0.34 * len(models) + 0.85, grid="x") as drawn:
        (ax,) = drawn.axes
        if best is not None:
            level(ax, best, "optimum", vertical=True)
        for y, (_, values, role) in enumerate(models):
            color, mean = COLOR[role], sum(values) / len(values)
            ax.plot([min(values), max(values)], [y, y], color=color, lw=1.2, alpha=0.5)
            ax.plot(values, [y] * len(values), "o", color=color, ms=4, alpha=0.45, mew=0)
            ax.plot([mean], [y], "d", color=color, ms=7, mec=COLOR["surface"], mew=0.8)
        _names(ax, [model.label for model in models], x_label)
    return drawn.svg


def changes(name: str, columns: Sequence[Row], *, x_label: str) -> str:
    """Draw each change (value, low, high) as a dot with its interval, beside a line at 0."""
    with drawing(name, 0.24 * len(columns) + 0.85, grid="x") as drawn:
        (ax,) = drawn.axes
        level(ax, 0.0, "optimum", vertical=True)
        values, lows, highs = zip(*(column.values for column in columns), strict=True)
        places, color = range(len(columns)), COLOR["model"]
        ax.hlines(places, lows, highs, color=color, lw=1.4)
        ax.plot(values, places, "o", color=color, ms=4.5)
        _names(ax, [clipped(column.label, 24) for column in columns], x_label)
    return drawn.svg


def frontier(name: str, dots: Sequence[Dot], *, y_label: str) -> str:
    """Draw values over sizes, smaller is better in both, with names on the best of each size."""
    with drawing(name, HIGH, grid="both") as drawn:
        (ax,) = drawn.axes
        _frontier(ax, [dot for dot in dots if dot.best])
        for dot in dots:
            _dot(ax, dot.size_bytes, dot, 1.0 if dot.best else 0.55)
            if dot.best:
                place = (dot.size_bytes, dot.value)
                ax.annotate(dot.label, place, (5, 5), textcoords="offset points", fontsize=8.5)
        left = min(dot.size_bytes for dot in dots) / 1.3
        right = max(dot.size_bytes for dot in dots) * 1.8
        steps = (1,) if right / left > 700 else (1, 3) if right / left > 70 else (1, 2, 5)
        places = [s * 10.0**p for p in range(13) for s in steps if left <= s * 10.0**p <= right]
        logarithmic(ax.xaxis, size, places or [left])
        ax.set_xlim(left, right)
        ax.margins(y=0.12)
        ticks(ax.yaxis, most=6)
        labels(ax, "bytes of the tables", y_label)
    return drawn.svg


def precision(name: str, dots: Sequence[Dot], *, neutral: float, noise: float) -> str:
    """Draw the change of the AUC over the bytes of a sample, with its interval.

    Args:
        name: A name of its own within the page.
        dots: At least one; those of equal bytes stand beside each other.
        neutral: Changes of at most so much are none, a band.
        noise: Standard deviation of seeds, a wider band; 0 where it is not known.

    """
    with drawing(name, TALL) as drawn:
        (ax,) = drawn.axes
        if noise:
            ax.axhspan(-noise, noise, color=COLOR["muted"], alpha=0.14, lw=0)
        ax.axhspan(-neutral, neutral, color=COLOR["optimum"], alpha=0.22, lw=0)
        ax.axhline(0, color=COLOR["muted"], lw=0.8)
        most = max(dot.size_bytes for dot in dots)
        sizes = [dot.size_bytes for dot in dots]
        places = [
            x + 0.03 * most * (sizes[:at].count(x) - (sizes.count(x) - 1) / 2)
            for at, x in enumerate(sizes)
        ]
        moved = [dot._replace(size_bytes=x) for dot, x in zip(dots, places, strict=True)]
        _frontier(ax, [dot for dot in moved if dot.best])
        for dot in moved:
            x, color = dot.size_bytes, COLOR[dot.role]
            ax.vlines([x], [dot.low], [dot.high], color=color, lw=1.4, alpha=0.6)
            _dot(ax, x, dot)
        ends = [end for dot in dots for end in (dot.low, dot.high, dot.value)]
        _symmetric(ax, min([*ends, -neutral, -noise]), max([*ends, neutral, noise]), 5 * neutral)
        ax.set_xlim(0, 1.12 * most)
        ticks(ax.xaxis, compact)
        labels(ax, "bytes of table rows read for a sample", "change of the AUC")
        tops = [(dot.size_bytes, max(dot.high, dot.value)) for dot in moved]
        callouts(ax, tops, [dot.label for dot in moved], height=0.96)
    return drawn.svg


def predictions(name: str, guesses: Sequence[tuple[float, float, str]], tolerance: float) -> str:
    """Draw predictions over measurements; what is right lies on the diagonal.

    Args:
        name: A name of its own within the page.
        guesses: Predicted and measured milliseconds above 0, and the colour; at least one.
        tolerance: Relative error that is aimed at, a band.

    """
    with drawing(name, HIGH, grid="both") as drawn:
        (ax,) = drawn.axes
        ends = [end for *both, _ in guesses for end in both]
        line = [min(ends) / 1.5, max(ends) * 1.5]
        below, above = ([end * (1 + off) for end in line] for off in (-tolerance, tolerance))
        ax.fill_between(line, below, above, color=COLOR["optimum"], alpha=0.18, lw=0)
        diagonal(ax, *line)
        for predicted, measured, role in guesses:
            ax.plot([measured], [predicted], "o", color=COLOR[role], ms=4.2, alpha=0.75, mew=0)
        logarithmic(ax.xaxis)
        logarithmic(ax.yaxis)
        ax.set_xlim(*line)
        ax.set_ylim(*line)
        labels(ax, "measured, ms", "predicted, ms")
    return drawn.svg


def size(value: float) -> str:
    """Return bytes without decimals that they do not need, e.g. `32 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _names(ax, names: Sequence[str], x_label: str) -> None:
    """Write a name beside each line, the first at the top."""
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(axis="y", colors=COLOR["ink"])
    ax.margins(x=0.06)
    ticks(ax.xaxis)
    labels(ax, x_label, "")


def _frontier(ax, best: Sequence[Dot]) -> None:
    """Join what no other beats."""
    order = sorted((dot.size_bytes, dot.value) for dot in best)
    x, y = [size for size, _ in order], [value for _, value in order]
    ax.step(x, y, where="post", color=COLOR["muted"], lw=1.1)


def _dot(ax, x: float, dot: Dot, alpha: float = 1.0) -> None:
    mark, wide = "D" if dot.role == "test" else "o", 6 if dot.best else 4.5
    ax.plot([x], [dot.value], mark, color=COLOR[dot.role], ms=wide, alpha=alpha, mew=0)


def _symmetric(ax, low: float, high: float, straight: float) -> None:
    """Show changes of either sign; where some are far off, by logarithms beyond so much."""
    if max(-low, high) <= 4 * straight:
        pad = 0.1 * (high - low)
        ax.set_ylim(low - pad, high + 2.5 * pad)
        ticks(ax.yaxis, most=7)
        return
    ax.set_yscale("symlog", linthresh=straight)
    ax.set_ylim(1.6 * min(low, -straight), 8 * max(high, straight))
    steps = [straight * 10**power for power in range(6)]
    ax.set_yticks([*(-s for s in reversed(steps)), 0.0, *steps])
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
