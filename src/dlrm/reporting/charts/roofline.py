"""The roofline: what operators reach, below what the machine can do.

Source: Williams, Waterman, Patterson, "Roofline: an insightful visual performance model for
multicore architectures", Communications of the ACM 2009.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
class Roof:
    """A ceiling: a rate of arithmetic, or of memory."""

    label: str
    rate: float
    """GFLOP/s, or GB/s of memory."""
    memory: bool
    dashes: str
    """Lengths of dashes and gaps, as SVG writes them; nothing for a solid line."""


@dataclass(frozen=True, slots=True)
class Point:
    """An operator."""

    label: str
    """Drawn beside it; nothing for a point that is only there."""
    intensity: float
    """FLOP a byte, above 0."""
    rate: float
    """GFLOP/s, above 0."""
    role: str
    """Its colour."""


def roofline(name: str, title: str, roofs: Sequence[Roof], points: Sequence[Point]) -> str:
    """Draw operators below the ceilings of a machine.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        roofs: Of arithmetic and of memory; there may be none.
        points: At least one.

    """
    flat = [roof.rate for roof in roofs if not roof.memory]
    slopes = [roof.rate for roof in roofs if roof.memory]
    highest = max([*flat, *(point.rate for point in points)])
    ridge = max(flat) / min(slopes) if flat and slopes else 1.0
    left = min(point.intensity for point in points) / 3
    right = max([ridge, *(point.intensity for point in points)]) * 4
    bottom, top = min(point.rate for point in points) / 5, highest * 3
    with drawing(1, TALL) as (figure, (ax,)):
        from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlim(left, right)
        ax.set_ylim(bottom, top)
        for roof in roofs:
            # A roof of memory ends where arithmetic limits, and the other way round.
            knee = (
                (max(flat) / roof.rate if flat else right)
                if roof.memory
                else (roof.rate / max(slopes) if slopes else left)
            )
            xs = (left, min(knee, right)) if roof.memory else (max(knee, left), right)
            ys = [x * roof.rate for x in xs] if roof.memory else [roof.rate] * 2
            if xs[0] < xs[1]:
                style = (0, tuple(map(float, roof.dashes.split()))) if roof.dashes else "-"
                role = "muted" if roof.memory else "ink"
                ax.plot(xs, ys, color=stand_in(role), lw=1.3, ls=style)
        for point in sorted(points, key=lambda point: bool(point.label)):
            ax.plot(
                [point.intensity], [point.rate], "o", color=stand_in(point.role), mew=0,
                ms=7 if point.label else 4, alpha=1.0 if point.label else 0.5,
            )  # fmt: skip
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(LogLocator(numticks=7))
            axis.set_minor_locator(NullLocator())
            axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter(lambda value, _: _tick(value))
        ax.grid(axis="x", visible=True)
        labels(ax, "FLOP per byte", "GFLOP/s")
        settle(figure)
        named = [point for point in points if point.label]
        label(
            figure,
            ax,
            [(point.intensity, point.rate) for point in named],
            [point.label for point in named],
            size=SMALL,
            others=[(p.intensity, p.rate) for p in points if not p.label],
            taken=_name(figure, ax, [roof for roof in roofs if not roof.memory], right),
        )
        return svg(figure, name, title)


def _name(figure: "Figure", ax: "Axes", roofs: Sequence[Roof], right: float) -> list[Box]:
    """Write the names of the flat roofs above their right ends, of near ones together."""
    inside, high = frame(figure, ax), 1.25 * SMALL
    lines: list[tuple[float, list[str]]] = []
    for roof in sorted(roofs, key=lambda roof: roof.rate):
        _, y = points_of(figure, ax, (right, roof.rate))
        near = lines.pop()[1] if lines and y - lines[-1][0] < high else []
        lines.append((y, [*near, roof.label]))
    boxes = []
    for y, names in lines:
        text = ", ".join(map(clipped, names))
        ax.annotate(
            text, (inside.right, y + 1), xycoords="figure points", ha="right", va="bottom",
            fontsize=SMALL, color=stand_in("muted"), annotation_clip=False,
        )  # fmt: skip
        wide = GLYPH * SMALL * len(text)
        boxes.append(Box(inside.right - wide, y, inside.right, y + high))
    return boxes


def _tick(value: float) -> str:
    return compact(value) if value >= 1 else f"{value:g}"
