"""What a machine can do: the roofline, and how fast random rows come by the size of the table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dlrm.reporting.charts.drawing import (
    COLOR,
    TALL,
    callouts,
    clipped,
    drawing,
    labels,
    line_style,
    logarithmic,
)
from dlrm.reporting.charts.points import size
from dlrm.reporting.words import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 5
"""Tables with a name on the gather curve, the largest ones."""


class Roof(NamedTuple):
    """A ceiling: a rate of arithmetic, or of memory."""

    label: str
    rate: float
    """GFLOP/s, or GB/s of memory."""
    memory: bool
    dashes: str
    """Lengths of dashes and gaps, as SVG writes them; nothing for a solid line."""


class Point(NamedTuple):
    """An operator below the roofs, or a table on the gather curve."""

    label: str
    """Drawn with it; nothing for a point that is only there."""
    x: float
    """FLOP a byte, or bytes of the table; above 0."""
    y: float
    """GFLOP/s, or million rows a second; above 0."""
    role: str
    """Its colour."""


class Gather(NamedTuple):
    """Rows of one size by the table that they lie in."""

    sizes: Sequence[float]
    """Bytes of the tables, in order; at least one."""
    rates: Sequence[float]
    """Million rows a second from each."""
    role: str
    dashes: str = ""


def roofline(name: str, roofs: Sequence[Roof], points: Sequence[Point]) -> str:
    """Draw operators below the ceilings of a machine.

    Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for
    multicore architectures", Communications of the ACM 2009.

    Args:
        name: A name of its own within the page.
        roofs: Of arithmetic and of memory; there may be none.
        points: Operators, at least one.

    """
    flat = [roof.rate for roof in roofs if not roof.memory]
    slopes = [roof.rate for roof in roofs if roof.memory]
    ridge = [max(flat) / min(slopes)] if flat and slopes else []
    left = min(point.x for point in points) / 3
    right = max([*ridge, *(point.x for point in points)]) * 4
    top = max([*flat, *(point.y for point in points)])
    with drawing(name, TALL, grid="both") as drawn:
        (ax,) = drawn.axes
        logarithmic(ax.xaxis, _count)
        logarithmic(ax.yaxis, _count)
        ax.set_xlim(left, right)
        ax.set_ylim(min(point.y for point in points) / 5, top * 6)
        for roof in roofs:
            # A roof of memory ends where arithmetic limits, and the other way round
            if roof.memory:
                xs = left, min(max(flat) / roof.rate if flat else right, right)
                ys = [x * roof.rate for x in xs]
            else:
                xs = max(roof.rate / max(slopes) if slopes else left, left), right
                ys = [roof.rate, roof.rate]
            if xs[0] < xs[1]:
                color = COLOR["muted" if roof.memory else "ink"]
                ax.plot(xs, ys, color=color, lw=1.3, ls=line_style(roof.dashes))
        _name(ax, [roof for roof in roofs if not roof.memory], right)
        named = [point for point in points if point.label]
        for point in [*(point for point in points if not point.label), *named]:
            wide, alpha = (7, 1.0) if point.label else (4, 0.5)
            ax.plot([point.x], [point.y], "o", color=COLOR[point.role], ms=wide, alpha=alpha, mew=0)
        callouts(ax, [point[1:3] for point in named], [p.label for p in named], height=0.96)
        labels(ax, "FLOP per byte", "GFLOP/s")
    return drawn.svg


def gather(
    name: str,
    curves: Sequence[Gather],
    caches: Sequence[tuple[str, int]],
    tables: Sequence[Point],
) -> str:
    """Draw rows a second over the bytes of the table that they lie in.

    Args:
        name: A name of its own within the page.
        curves: At least one.
        caches: Names and bytes of the machine's caches, the smallest first.
        tables: Of the models, the largest first.

    """
    sizes = [x for curve in curves for x in curve.sizes] + [table.x for table in tables]
    rates = [y for curve in curves for y in curve.rates] + [table.y for table in tables]
    left, right = min(sizes) / 1.5, max(sizes) * 2
    with drawing(name, TALL) as drawn:
        (ax,) = drawn.axes
        powers = [10.0**p for p in range(3, 15) if left <= 10.0**p <= right]
        logarithmic(ax.xaxis, size, powers or [left])
        logarithmic(ax.yaxis, subs=(1.0, 2.0, 5.0))
        ax.set_xlim(left, right)
        ax.set_ylim(min(rates) / 4, max(rates) * 2.6)
        for place, (text, cache) in enumerate(each for each in caches if left < each[1] < right):
            ax.axvline(cache, color=COLOR["muted"], lw=1.0, ls=line_style("1.5 2"))
            before = cache > (left * right) ** 0.5
            # One below the other, for those that are near
            ax.annotate(
                clipped(text), (cache, 0.99 - 0.055 * place), (-4 if before else 4, 0),
                ax.get_xaxis_transform(), "offset points", ha="right" if before else "left",
                va="top", fontsize=8, color=COLOR["muted"],
            )  # fmt: skip
        for x, y, role, dashes in curves:
            ax.plot(x, y, color=COLOR[role], ls=line_style(dashes), marker="o", ms=2.8)
        for _, x, y, role in tables:
            color, edge = COLOR[role], COLOR["surface"]
            ax.plot([x], [y], "D", color=color, mec=edge, ms=6, mew=0.8, zorder=3)
        named = tables[:NAMED]
        names = [clipped(table.label, 12) for table in named]
        callouts(ax, [table[1:3] for table in named], names, height=0.05, wide=0.19)
        labels(ax, "bytes of the table", "million rows a second")
    return drawn.svg


def _name(ax: "Axes", roofs: Sequence[Roof], right: float) -> None:
    """Write the names of flat roofs above their right ends, those of near ones together."""
    names: dict[float, str] = {}
    low, high = np.log10(ax.get_ylim())
    for roof in sorted(roofs, key=lambda roof: roof.rate):
        below = max(names, default=0.0)
        if below and np.log10(roof.rate / below) < 0.05 * (high - low):
            names[roof.rate] = f"{names.pop(below)}, {clipped(roof.label)}"
        else:
            names[roof.rate] = clipped(roof.label)
    for rate, name in names.items():
        ax.text(
            right, rate, name, ha="right", va="bottom", fontsize=8, color=COLOR["muted"],
            clip_on=True, in_layout=False,
        )  # fmt: skip


def _count(value: float) -> str:
    return compact(value) if value >= 1 else f"{value:g}"
