"""Changes of one number, each with its interval: a row each."""

from collections.abc import Sequence
from typing import NamedTuple

from dlrm.reporting.charts.drawing import DASHES, drawing, labels, stand_in, svg, tick

LETTERS = 24
"""Of a longer name the first ones are shown."""


class Change(NamedTuple):
    """What changed, by how much, and the ends of the interval."""

    label: str
    value: float
    low: float
    high: float


def changes(name: str, title: str, rows: Sequence[Change], *, x_label: str) -> str:
    """Draw each change as a dot with its interval, beside a line at 0.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        rows: From top to bottom; at least one.
        x_label: What changes.

    """
    with drawing(1, 0.24 * len(rows) + 0.85) as (figure, (ax,)):
        from matplotlib.ticker import MaxNLocator

        ax.grid(axis="y", visible=False)
        ax.grid(axis="x", visible=True)
        ax.axvline(0.0, color=stand_in("optimum"), ls=DASHES["optimum"], lw=1.4)
        color, places = stand_in("model"), range(len(rows))
        ax.hlines(
            places, [row.low for row in rows], [row.high for row in rows], color=color, lw=1.4
        )
        ax.plot([row.value for row in rows], places, "o", color=color, ms=4.5)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_yticks(places, [_short(row.label) for row in rows])
        ax.margins(x=0.06)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        ax.xaxis.set_major_formatter(lambda value, _: tick(value, ax.xaxis))
        ax.tick_params(axis="y", colors=stand_in("ink"))
        labels(ax, x_label, "")
        return svg(figure, name, title)


def _short(label: str) -> str:
    return label if len(label) <= LETTERS else f"{label[: LETTERS - 1]}…"
