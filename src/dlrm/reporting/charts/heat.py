"""A table of values as cells, the darker the more, with each value written in its cell."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from dlrm.reporting.charts.drawing import COLOR, Figure, clipped, drawing, labels
from dlrm.reporting.words import UNKNOWN

FAINT, STRONG = 0.06, 0.6
"""Opacity of the least and of the greatest value: text is read on both, in both themes."""
WIDE = 30.0
"""Quotient of the greatest and the least value from which on opacity follows the logarithm."""
_CELL, _AROUND = 0.42, 1.0
"""Height of a row of cells, and of what is above and below them, in inches."""


def heat(
    name: str,
    title: str,
    values: ArrayLike,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    x_label: str,
    y_label: str,
    shown: Callable[[float], str],
    role: str = "model",
) -> Figure:
    """Return a figure of values (R, C), the first row at the top; NaN where nothing is known.

    Args:
        name: A name of its own within the page.
        title: What the figure says.
        values: What stands in the cells.
        rows: Name of each row.
        columns: Name of each column.
        x_label: What columns are.
        y_label: What rows are.
        shown: Writes a value.
        role: Role of the cells, which gives their colour.

    """
    cells = np.asarray(values, np.float64)
    known = cells[np.isfinite(cells)]
    least, most = (known.min(), known.max()) if known.size else (0.0, 0.0)
    with drawing(name, title, _AROUND + _CELL * len(rows), grid="x") as (figure, ax):
        ax.grid(visible=False)
        for (y, x), value in np.ndenumerate(cells):
            share = _share(float(value), float(least), float(most))
            if share is not None:
                alpha = FAINT + (STRONG - FAINT) * share
                ax.barh([y], [0.96], 0.94, left=[x - 0.48], color=COLOR[role], alpha=alpha, lw=0)
            text = UNKNOWN if share is None else shown(float(value))
            ax.text(x, y, text, ha="center", va="center", fontsize=9)
        ax.set_xlim(-0.5, len(columns) - 0.5)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.set_xticks(range(len(columns)), [clipped(text, 14) for text in columns])
        ax.set_yticks(range(len(rows)), [clipped(text, 16) for text in rows])
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.tick_params(length=0)
        labels(ax, x_label, y_label)
    return figure


def _share(value: float, least: float, most: float) -> float | None:
    """Return where a value lies between the least and the most, 0 to 1; None where it is none."""
    if not np.isfinite(value):
        return None
    if most <= least:
        return 0.5
    if least > 0 and most > WIDE * least:
        low, high = np.log(least), np.log(most)
        return float((np.log(value) - low) / (high - low))
    return (value - least) / (most - least)
