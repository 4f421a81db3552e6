"""Bars of several pieces: what lies on a device, or how long the parts of a step take."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dlrm.reporting.charts.drawing import (
    COLOR,
    Figure,
    clipped,
    drawing,
    labels,
    level,
    shares,
    ticks,
)
from dlrm.reporting.words import compact

NARROW = 0.07
"""Share of a bar below which no figure is written on it."""


class Piece(NamedTuple):
    """A part of a bar."""

    value: float
    role: str
    """Role of the part, which gives its colour."""
    light: bool = False
    """Whether it is faint, as the backward pass of an operator."""

    def style(self, edge: float) -> dict[str, Any]:
        """Return how it is drawn, with an edge so wide."""
        alpha = 0.4 if self.light else 0.88
        return {"color": COLOR[self.role], "alpha": alpha, "ec": COLOR["surface"], "lw": edge}


def stacks(
    name: str,
    title: str,
    bars: Sequence[Sequence[Piece]],
    *,
    x_label: str,
    y_label: str,
    texts: Sequence[str] = (),
    limit: float | None = None,
    shown: Callable[[float], str] = compact,
) -> Figure:
    """Return a figure of bars beside each other, of their pieces from bottom to top.

    Their `texts` stand below them, or else their numbers from 0; a `limit` that none should exceed
    is dashed across where it is near; `shown` writes the values beside the axis.
    """
    with drawing(name, title) as (figure, ax):
        width, edge = (0.98, 0.0) if len(bars) > 40 else (0.76, 0.5)
        for at, pieces in enumerate(bars):
            bottom = 0.0
            for piece in pieces:
                ax.bar([at], [piece.value], width, bottom=[bottom], **piece.style(edge))
                bottom += piece.value
        most = max(sum(piece.value for piece in pieces) for pieces in bars) or 1.0
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
    return figure


def shares_of(name: str, title: str, bars: Sequence[tuple[str, Sequence[Piece]]]) -> Figure:
    """Return a figure of named bars of 100%, of the shares of their pieces from left to right."""
    with drawing(name, title, 0.55 * len(bars) + 0.55, grid="x") as (figure, ax):
        ax.spines["left"].set_visible(False)
        for y, (text, pieces) in enumerate(bars):
            ax.text(0.0, y - 0.36, clipped(text, 76), va="bottom", fontsize=8.5, in_layout=False)
            whole, left = sum(piece.value for piece in pieces) or 1.0, 0.0
            for piece in pieces:
                wide = piece.value / whole
                ax.barh([y], [wide], 0.56, left=[left], **piece.style(0.6))
                if wide >= NARROW:
                    style = {"fontsize": 8.5, "color": COLOR["ink" if piece.light else "surface"]}
                    ax.text(left + wide / 2, y, f"{wide:.0%}", ha="center", va="center", **style)
                left += wide
        ax.set_xlim(0, 1)
        ax.set_ylim(len(bars) - 0.5, -0.78)
        ax.set_yticks([])
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1])
        shares(ax.xaxis)
    return figure
