"""The gather curve: how fast random rows come, by how large the table is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dlrm.reporting.charts.drawing import drawing, labels, stand_in, svg
from dlrm.reporting.charts.labelling import clipped, frame, label, points_of, settle
from dlrm.reporting.charts.placing import GLYPH, Box
from dlrm.reporting.words import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TALL = 3.9
"""Inches."""
SMALL = 8.0
"""Height of the labels in points."""


@dataclass(frozen=True, slots=True)
class Gather:
    """Rows of one size."""

    sizes: tuple[float, ...]
    """Bytes of the tables, in order; at least one."""
    rates: tuple[float, ...]
    """Million rows a second from each."""
    role: str
    """Colour of the line."""
    dashes: str = ""
    """Lengths of dashes and gaps, as SVG writes them; nothing for a solid line."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A table of a model."""

    label: str
    """Drawn beside it."""
    size_bytes: float
    rate: float
    """Million rows a second, as the curve has it."""
    role: str


def gather(
    name: str,
    title: str,
    curves: Sequence[Gather],
    caches: Sequence[tuple[str, int]],
    tables: Sequence[Spot],
) -> str:
    """Draw rows a second over the bytes of the table that they lie in.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        curves: At least one.
        caches: Names and bytes of the machine's caches.
        tables: Of the models, the most important ones first.

    """
    sizes = [size for curve in curves for size in curve.sizes]
    sizes += [table.size_bytes for table in tables]
    rates = [rate for curve in curves for rate in curve.rates] + [table.rate for table in tables]
    left, right = min(sizes) / 1.5, max(sizes) * 2
    with drawing(1, TALL) as (figure, (ax,)):
        from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator

        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlim(left, right)
        ax.set_ylim(min(rates) / 1.6, max(rates) * 2.2)
        shown = [(text, size) for text, size in caches if left < size < right]
        for _, size in shown:
            ax.axvline(size, color=stand_in("muted"), lw=1.0, ls=(0, (1.5, 2)))
        for curve in curves:
            style = (0, tuple(map(float, curve.dashes.split()))) if curve.dashes else "-"
            ax.plot(
                curve.sizes, curve.rates, color=stand_in(curve.role), ls=style, marker="o", ms=2.8
            )
        for table in tables:
            ax.plot(
                [table.size_bytes], [table.rate], "D", color=stand_in(table.role), ms=6,
                mec=stand_in("surface"), mew=0.8, zorder=3,
            )  # fmt: skip
        powers = [10.0**p for p in range(3, 15) if left <= 10.0**p <= right]
        ax.xaxis.set_major_locator(FixedLocator(powers or [left]))
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_minor_locator(NullLocator())
            axis.set_minor_formatter(NullFormatter())
        ax.xaxis.set_major_formatter(lambda value, _: sized(value))
        ax.yaxis.set_major_formatter(lambda value, _: compact(value))
        labels(ax, "bytes of the table", "million rows a second")
        settle(figure)
        label(
            figure,
            ax,
            [(table.size_bytes, table.rate) for table in tables],
            [table.label for table in tables],
            size=SMALL,
            others=[point for curve in curves for point in _along(curve)],
            taken=_name(figure, ax, shown),
        )
        return svg(figure, name, title)


def sized(value: float) -> str:
    """Return a size without decimals that it does not need, e.g. `32 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _along(curve: Gather) -> list[tuple[float, float]]:
    """Return points so near to one another that no label fits between."""
    x, y = np.log(curve.sizes), np.log(curve.rates)
    fine = np.linspace(x[0], x[-1], 80)
    return list(zip(np.exp(fine), np.exp(np.interp(fine, x, y)), strict=True))


def _name(figure: "Figure", ax: "Axes", caches: Sequence[tuple[str, int]]) -> list[Box]:
    """Write the names of caches at the top of their lines, one below the other where they meet.

    Returns:
        Where no other label may stand, lines included.

    """
    inside = frame(figure, ax)
    boxes: list[Box] = []
    lines: list[Box] = []
    for named, size in sorted(caches, key=lambda cache: cache[1]):
        x, _ = points_of(figure, ax, (size, ax.get_ylim()[0]))
        text = clipped(named)
        wide, high = GLYPH * SMALL * len(text), 1.3 * SMALL
        start = x + 3 if x + 3 + wide <= inside.right else x - 3 - wide
        box = Box(start, inside.top - high, start + wide, inside.top)
        while any(map(box.meets, boxes)):
            box = Box(box.left, box.bottom - high, box.right, box.top - high)
        ax.annotate(
            text, (box.left, box.bottom), xycoords="figure points", fontsize=SMALL, va="bottom",
            color=stand_in("muted"), annotation_clip=False,
        )  # fmt: skip
        boxes.append(box)
        lines.append(Box(x - 1, inside.bottom, x + 1, inside.top))
    return boxes + lines
