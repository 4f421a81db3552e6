"""Bars of several pieces: what lies on a device, or how long the parts of a step take."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dlrm.reporting.charts.drawing import COLOR, LOW, clipped, drawing, labels, level, shares, ticks
from dlrm.reporting.words import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STRONG, LIGHT = 0.88, 0.4
"""How opaque pieces are, and faint ones."""
NARROW = 0.07
"""Share of a bar below which no figure is written on it."""


class Piece(NamedTuple):
    """A part of a bar."""

    value: float
    role: str
    """Role of the part, which gives its colour."""
    light: bool = False
    """Whether it is faint, as the backward pass of an operator."""


def stacks(
    name: str,
    bars: Sequence[Sequence[Piece]],
    *,
    x_label: str,
    y_label: str,
    texts: Sequence[str] = (),
    limit: float | None = None,
    shown: Callable[[float], str] = compact,
) -> str:
    """Draw bars beside each other, of their pieces from bottom to top.

    Their `texts` stand below them, or else their numbers from 0; a `limit` that none should exceed
    is dashed across where it is near; `shown` writes the values beside the axis.
    """
    with drawing(name, LOW) as drawn:
        ax = drawn.axes[0]
        bottoms = [0.0] * len(bars)
        for at, pieces in enumerate(bars):
            for piece in pieces:
                style = _style(piece, 0.0 if len(bars) > 40 else 0.5)
                width = 0.98 if len(bars) > 40 else 0.76
                ax.bar([at], [piece.value], width, bottom=[bottoms[at]], **style)
                bottoms[at] += piece.value
        most = max(bottoms) or 1.0
        if limit is not None and limit < 8 * most:
            level(ax, limit, "baseline")
            most = max(most, limit)
        ax.set_ylim(0, 1.08 * most)
        ax.set_xlim(-0.6, max(len(bars), 3 if texts else 1) - 0.4)
        ticks(ax.yaxis, shown)
        if texts:
            ax.set_xticks(range(len(texts)), [clipped(text) for text in texts])
        else:
            ticks(ax.xaxis, lambda value: f"{value:.0f}" if value == round(value) else "", most=9)
        labels(ax, x_label, y_label)
    return drawn.svg


def shares_of(name: str, bars: Sequence[tuple[str, Sequence[Piece]]]) -> str:
    """Draw a named bar of 100% for each whole, of the shares of its pieces from left to right."""
    with drawing(name, 0.55 * len(bars) + 0.55, grid="x") as drawn:
        ax = drawn.axes[0]
        ax.spines["left"].set_visible(False)
        for y, (text, pieces) in enumerate(bars):
            ax.text(0.0, y - 0.36, clipped(text, 76), va="bottom", fontsize=8.5, in_layout=False)
            _share(ax, y, pieces)
        ax.set_xlim(0, 1)
        ax.set_ylim(len(bars) - 0.5, -0.78)
        ax.set_yticks([])
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
        shares(ax.xaxis)
    return drawn.svg


def _share(ax: "Axes", y: float, pieces: Sequence[Piece]) -> None:
    whole, left = sum(piece.value for piece in pieces) or 1.0, 0.0
    for piece in pieces:
        wide = piece.value / whole
        ax.barh([y], [wide], 0.56, left=[left], **_style(piece, 0.6))
        if wide >= NARROW:
            color, middle = COLOR["ink" if piece.light else "surface"], left + wide / 2
            ax.text(middle, y, f"{wide:.0%}", ha="center", va="center", fontsize=8.5, color=color)
        left += wide


def _style(piece: Piece, edge: float) -> dict[str, Any]:
    alpha = LIGHT if piece.light else STRONG
    return {"color": COLOR[piece.role], "alpha": alpha, "ec": COLOR["surface"], "lw": edge}
