"""Accuracy against bytes: what fewer bits cost, beside what seeds do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dlrm.reporting.charts.drawing import drawing, labels, stand_in, svg, tick
from dlrm.reporting.charts.labelling import label
from dlrm.reporting.charts.placing import ABOVE
from dlrm.reporting.words import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TALL = 3.9
"""Inches."""
APART = 0.03
"""Of the axis, between variants of equal bytes."""
WIDE = 5
"""Times the neutral band, the part of a wide axis that is not logarithmic."""


@dataclass(frozen=True, slots=True)
class Bits:
    """A way to store or to compute with fewer bits."""

    label: str
    size_bytes: float
    """Of table rows, read for a sample."""
    change: float
    """Of the AUC."""
    low: float
    high: float
    role: str
    """Its colour."""
    best: bool
    """Whether no other is better in both; those are joined by a line."""


def precision(
    name: str, title: str, variants: Sequence[Bits], *, neutral: float, noise: float | None
) -> str:
    """Draw the change of the AUC over the bytes of a sample, with its interval.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        variants: At least one.
        neutral: Changes of at most so much are none, a band.
        noise: Standard deviation of seeds, a wider band; None where it is not known.

    """
    with drawing(1, TALL) as (figure, (ax,)):
        from matplotlib.ticker import MaxNLocator

        if noise:
            ax.axhspan(-noise, noise, color=stand_in("muted"), alpha=0.14, lw=0)
        ax.axhspan(-neutral, neutral, color=stand_in("optimum"), alpha=0.22, lw=0)
        ax.axhline(0, color=stand_in("muted"), lw=0.8)
        most = max(variant.size_bytes for variant in variants)
        places = _beside(variants, APART * most)
        best = sorted(
            (x, variant.change) for variant, x in zip(variants, places, strict=True) if variant.best
        )
        ax.step(
            [x for x, _ in best],
            [y for _, y in best],
            where="post",
            color=stand_in("muted"),
            lw=1.1,
        )
        for variant, x in zip(variants, places, strict=True):
            color = stand_in(variant.role)
            ax.vlines([x], [variant.low], [variant.high], color=color, lw=1.4, alpha=0.6)
            mark, size = "D" if variant.role == "test" else "o", 6 if variant.best else 4.5
            ax.plot([x], [variant.change], mark, color=color, ms=size, mew=0)
        ax.set_xlim(0, 1.12 * most)
        ends = [end for variant in variants for end in (variant.low, variant.high)]
        ends += [-neutral, neutral, *([-noise, noise] if noise else [])]
        _scale(ax, min(ends), max(ends), WIDE * neutral)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        ax.xaxis.set_major_formatter(lambda value, _: compact(value))
        labels(ax, "bytes of table rows read for a sample", "change of the AUC")
        order = sorted(zip(variants, places, strict=True), key=lambda variant: not variant[0].best)
        # Above its interval, which leads to the dot.
        label(
            figure,
            ax,
            [(x, max(variant.high, variant.change)) for variant, x in order],
            [variant.label for variant, _ in order],
            size=8.0,
            others=[(x, variant.change) for variant, x in order],
            directions=ABOVE,
        )
        return svg(figure, name, title)


def _beside(variants: Sequence[Bits], apart: float) -> list[float]:
    """Return where variants are drawn: those of equal bytes beside each other."""
    sizes = [variant.size_bytes for variant in variants]
    return [
        size + apart * (sizes[:at].count(size) - (sizes.count(size) - 1) / 2)
        for at, size in enumerate(sizes)
    ]


def _scale(ax: "Axes", low: float, high: float, straight: float) -> None:
    """Show all changes; where some are far off, by logarithms beyond so much."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

    if max(-low, high) <= 4 * straight:
        pad = 0.1 * (high - low)
        ax.set_ylim(low - pad, high + 1.5 * pad)
        ax.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 2.5, 5, 10]))
        ax.yaxis.set_major_formatter(lambda value, _: tick(value, ax.yaxis))
        return
    ax.set_yscale("symlog", linthresh=straight)
    ax.set_ylim(1.6 * min(low, -straight), 4 * max(high, straight))
    steps = [straight * 10**power for power in range(6)]
    ax.yaxis.set_major_locator(FixedLocator([*(-s for s in reversed(steps)), 0.0, *steps]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
