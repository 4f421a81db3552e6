"""How scores are spread and calibrated, and predictions of numbers against what they were of."""

import numpy as np

from dlrm.reporting.charts.drawing import (
    COLOR,
    HIGH,
    diagonal,
    drawing,
    labels,
    level,
    round_down,
    shares,
    ticks,
)
from dlrm.reporting.series import Floats
from dlrm.reporting.words import compact


def calibration(name: str, bins: Floats, scores: Floats, rates: Floats, samples: Floats) -> str:
    """Draw the positive rate of each bin of scores against its mean score.

    Args:
        name: A name of its own within the page.
        bins: (K, 2) lower and upper end of each bin.
        scores: (K,) mean score of the rows in it.
        rates: (K,) positive rate of the rows in it.
        samples: (K,) how many rows are in it, none of them 0.

    """
    # Bins made to hold equally many rows tell nothing by their counts; the others are drawn below
    alike = samples.max() <= 1.5 * samples.min()
    with drawing(name, HIGH, rows=1 if alike else 2) as drawn:
        ax, below = drawn.axes[0], drawn.axes[-1]
        most = max(scores.max(), 0.0 if alike else bins[:, 1].max())
        end = min(1.0, 1.06 * float(most) or 1.0)
        diagonal(ax, 0, 1)
        low, high = interval(rates, samples)
        ax.vlines(scores, low, high, color=COLOR["model"], lw=1.2, alpha=0.6)
        ax.plot(scores, rates, "o", color=COLOR["model"], ms=4.5, clip_on=False, zorder=3)
        ax.set_xlim(0, end)
        ax.set_ylim(0, min(1.0, 1.06 * float(max(high.max(), scores.max()))))
        shares(ax.yaxis)
        labels(ax, "", "positive rate, with its 95% interval")
        if not alike:
            # Bins of equal scores have no width, but are there
            widths = np.maximum(np.diff(bins, axis=1)[:, 0] - 0.006 * end, 0.006 * end)
            color, most = COLOR["model"], float(samples.max())
            below.bar(bins[:, 0], samples, widths, align="edge", color=color, alpha=0.75)
            below.set_ylim(0, most * 1.15)
            below.set_yticks([0.0, round_down(most)])
            below.yaxis.set_major_formatter(lambda value, _: compact(value))
            labels(below, "", "rows in the bin")
        shares(below.xaxis)
        below.set_xlabel("mean score in the bin", loc="right")
    return drawn.svg


def histogram(name: str, edges: Floats, negatives: Floats, positives: Floats) -> str:
    """Draw how the scores of either label are spread; each label's bars add up to 100%.

    Args:
        name: A name of its own within the page.
        edges: (K + 1,) ends of the bins.
        negatives: (K,) rows without a click in each bin.
        positives: (K,) rows with one.

    """
    with drawing(name, HIGH) as drawn:
        (ax,) = drawn.axes
        filled = np.flatnonzero(negatives + positives)
        for counts, role, dash in ((negatives, "model", "-"), (positives, "train", (0, (4, 1.5)))):
            if counts.any():
                heights = counts / float(counts.sum())
                ax.stairs(heights, edges, fill=True, color=COLOR[role], alpha=0.28, lw=0)
                ax.stairs(heights, edges, color=COLOR[role], lw=1.6, ls=dash, baseline=None)
        if len(filled):
            ax.set_xlim(float(edges[filled[0]]), float(edges[filled[-1] + 1]))
        ax.set_ylim(bottom=0)
        shares(ax.xaxis)
        shares(ax.yaxis)
        labels(ax, "score", "share of the label's rows")
    return drawn.svg


def predicted(name: str, means: Floats, actual: Floats, low: Floats, high: Floats) -> str:
    """Draw actual values against predicted ones.

    Args:
        name: A name of its own within the page.
        means: (K,) mean prediction of the rows in each bin.
        actual: (K,) their mean label.
        low: (K,) where the middle of their labels begins.
        high: (K,) where it ends.

    """
    with drawing(name, HIGH) as drawn:
        (ax,) = drawn.axes
        left, right = _around(means)
        bottom, top = _around(np.concatenate([low, high, actual]))
        diagonal(ax, min(left, bottom), max(right, top))
        ax.vlines(means, low, high, color=COLOR["model"], lw=1.2, alpha=0.6)
        ax.plot(means, actual, "o", color=COLOR["model"], ms=4.5, clip_on=False, zorder=3)
        ax.set_xlim(left, right)
        ax.set_ylim(bottom, top)
        ticks(ax.xaxis)
        ticks(ax.yaxis)
        labels(ax, "mean prediction in the bin", "actual value, with its middle 80%")
    return drawn.svg


def residuals(name: str, edges: Floats, counts: Floats) -> str:
    """Draw how far predictions are off; the bars add up to 100%.

    Args:
        name: A name of its own within the page.
        edges: (K + 1,) ends of the bins of predicted less actual.
        counts: (K,) rows in each.

    """
    with drawing(name, HIGH) as drawn:
        (ax,) = drawn.axes
        heights = counts / float(counts.sum())
        ax.stairs(heights, edges, fill=True, color=COLOR["model"], alpha=0.28, lw=0)
        ax.stairs(heights, edges, color=COLOR["model"], lw=1.6, baseline=None)
        level(ax, 0.0, "optimum", vertical=True)
        ax.set_xlim(float(edges[0]), float(edges[-1]))
        ax.set_ylim(bottom=0)
        ticks(ax.xaxis)
        shares(ax.yaxis)
        labels(ax, "predicted less actual", "share of the rows")
    return drawn.svg


def interval(rates: Floats, samples: Floats) -> tuple[Floats, Floats]:
    """Return Wilson's 95% interval of rates (K,) seen on samples (K,)."""
    z2 = 1.96**2 / samples
    center = (rates + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * (rates * (1 - rates) + z2 / 4)) / (1 + z2)
    return np.minimum(center - half, rates), np.maximum(center + half, rates)


def _around(values: Floats) -> tuple[float, float]:
    """Return limits of an axis that shows all of these."""
    low, high = float(values.min()), float(values.max())
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - pad, high + pad
