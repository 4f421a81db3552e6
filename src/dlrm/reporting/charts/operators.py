"""Time by operator: stacks by batch size, and shares of a step as in Figure 6 of the paper."""

from collections.abc import Sequence
from dataclasses import dataclass

from dlrm.reporting.charts.drawing import LOW, drawing, labels, shares, stand_in, svg
from dlrm.reporting.charts.labelling import clipped
from dlrm.reporting.words import compact

STRONG, LIGHT = 0.9, 0.42
"""How opaque the forward and the backward pass are."""
NARROW = 0.07
"""Share of a bar below which no figure is written on it."""

LONGEST = 76
"""Letters above a bar."""


@dataclass(frozen=True, slots=True)
class Piece:
    """An operator in a bar, or one of its passes."""

    value: float
    role: str
    """Its colour."""
    light: bool = False
    """The backward pass: lighter, and hatched."""


def stacked(
    name: str,
    title: str,
    bars: Sequence[tuple[str, Sequence[Piece]]],
    *,
    x_label: str,
    y_label: str,
) -> str:
    """Draw a bar for each setting, of its pieces from bottom to top.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        bars: What stands below each, and its pieces; at least one.
        x_label: What stands below.
        y_label: What the pieces are.

    """
    with drawing(1, LOW + 0.4) as (figure, (ax,)):
        from matplotlib.ticker import MaxNLocator

        for x, (_, pieces) in enumerate(bars):
            bottom = 0.0
            for piece in pieces:
                ax.bar([x], [piece.value], 0.72, bottom=[bottom], **_style(piece))
                bottom += piece.value
        ax.set_xlim(-0.6, max(len(bars), 3) - 0.4)
        ax.set_xticks(range(len(bars)), [clipped(text) for text, _ in bars])
        ax.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        ax.yaxis.set_major_formatter(lambda value, _: compact(value))
        labels(ax, x_label, y_label)
        return svg(figure, name, title)


def split(name: str, title: str, bars: Sequence[tuple[str, Sequence[Piece]]]) -> str:
    """Draw for each step one bar of 100%, of the shares of its operators from left to right.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        bars: What stands above each, and its pieces; at least one.

    """
    with drawing(1, 0.55 * len(bars) + 0.55) as (figure, (ax,)):
        ax.grid(axis="y", visible=False)
        ax.spines["left"].set_visible(False)
        for y, (text, pieces) in enumerate(bars):
            whole, left = sum(piece.value for piece in pieces) or 1.0, 0.0
            for piece in pieces:
                wide = piece.value / whole
                ax.barh([y], [wide], 0.56, left=[left], **_style(piece))
                if wide >= NARROW:
                    ax.text(
                        left + wide / 2, y, f"{wide:.0%}", ha="center", va="center", fontsize=8.5,
                        color=stand_in("ink" if piece.light else "surface"),
                    )  # fmt: skip
                left += wide
            above = clipped(text, LONGEST)
            ax.text(
                0.0, y - 0.36, above, va="bottom", fontsize=8.5, color=stand_in("ink"),
                in_layout=False,
            )  # fmt: skip
        ax.set_xlim(0, 1)
        ax.set_ylim(len(bars) - 0.5, -0.78)
        ax.set_yticks([])
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
        shares(ax.xaxis)
        return svg(figure, name, title)


def _style(piece: Piece) -> dict:
    return {
        "color": stand_in(piece.role),
        "alpha": LIGHT if piece.light else STRONG,
        "ec": stand_in("surface"),
        "lw": 0.6,
    }
