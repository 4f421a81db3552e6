"""How scores are spread and calibrated, and predictions of numbers against what they were of."""

from typing import TYPE_CHECKING

import numpy as np

from dlrm.reporting.charts.drawing import (
    DASHES,
    HIGH,
    drawing,
    labels,
    round_down,
    shares,
    stand_in,
    svg,
    tick,
)
from dlrm.reporting.series import Floats
from dlrm.reporting.words import compact

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def calibration(
    name: str, title: str, bins: Floats, scores: Floats, rates: Floats, samples: Floats
) -> str:
    """Draw the positive rate of each bin of scores against its mean score.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        bins: (K, 2) lower and upper end of each bin.
        scores: (K,) mean score of the rows in it.
        rates: (K,) positive rate of the rows in it.
        samples: (K,) how many rows are in it, none of them 0.

    """
    # Bins made to hold equally many rows tell nothing by their counts; the others are drawn below
    alike = samples.max() <= 1.5 * samples.min()
    with drawing(1 if alike else 2, HIGH) as (figure, axes):
        ax = axes[0]
        most = max(scores.max(), 0.0 if alike else bins[:, 1].max())
        end = min(1.0, 1.06 * float(most) or 1.0)
        ax.plot([0, 1], [0, 1], color=stand_in("optimum"), ls=DASHES["optimum"], lw=1.4)
        low, high = interval(rates, samples)
        ax.vlines(scores, low, high, color=stand_in("model"), lw=1.2, alpha=0.6)
        ax.plot(scores, rates, "o", color=stand_in("model"), ms=4.5, clip_on=False, zorder=3)
        ax.set_xlim(0, end)
        ax.set_ylim(0, min(1.0, 1.06 * float(max(high.max(), scores.max()))))
        shares(ax.yaxis)
        labels(ax, "", "positive rate, with its 95% interval")
        if not alike:
            # Bins of equal scores have no width, but are there
            widths = np.maximum(np.diff(bins, axis=1)[:, 0] - 0.006 * end, 0.006 * end)
            _bars(axes[1], bins[:, 0], widths, samples)
        shares(axes[-1].xaxis)
        axes[-1].set_xlabel("mean score in the bin", loc="right")
        return svg(figure, name, title)


def histogram(name: str, title: str, edges: Floats, negatives: Floats, positives: Floats) -> str:
    """Draw how the scores of either label are spread; each label's bars add up to 100%.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        edges: (K + 1,) ends of the bins.
        negatives: (K,) rows without a click in each bin.
        positives: (K,) rows with one.

    """
    with drawing(1, HIGH) as (figure, (ax,)):
        filled = np.flatnonzero(negatives + positives)
        for counts, role, dash in ((negatives, "model", "-"), (positives, "train", (0, (4, 1.5)))):
            if not counts.any():
                continue
            heights = counts / float(counts.sum())
            ax.stairs(heights, edges, fill=True, color=stand_in(role), alpha=0.28, lw=0)
            ax.stairs(heights, edges, color=stand_in(role), lw=1.6, ls=dash, baseline=None)
        if len(filled):
            ax.set_xlim(float(edges[filled[0]]), float(edges[filled[-1] + 1]))
        ax.set_ylim(bottom=0)
        shares(ax.xaxis)
        shares(ax.yaxis)
        labels(ax, "score", "share of the label's rows")
        return svg(figure, name, title)


def predicted(
    name: str, title: str, means: Floats, actual: Floats, low: Floats, high: Floats
) -> str:
    """Draw actual values against predicted ones.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        means: (K,) mean prediction of the rows in each bin.
        actual: (K,) their mean label.
        low: (K,) where the middle of their labels begins.
        high: (K,) where it ends.

    """
    with drawing(1, HIGH) as (figure, (ax,)):
        from matplotlib.ticker import MaxNLocator

        left, right = _around(means)
        bottom, top = _around(np.concatenate([low, high, actual]))
        ends = [min(left, bottom), max(right, top)]
        ax.plot(ends, ends, color=stand_in("optimum"), ls=DASHES["optimum"], lw=1.4)
        ax.vlines(means, low, high, color=stand_in("model"), lw=1.2, alpha=0.6)
        ax.plot(means, actual, "o", color=stand_in("model"), ms=4.5, clip_on=False, zorder=3)
        ax.set_xlim(left, right)
        ax.set_ylim(bottom, top)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
            axis.set_major_formatter(lambda value, _, axis=axis: tick(value, axis))
        labels(ax, "mean prediction in the bin", "actual value, with its middle 80%")
        return svg(figure, name, title)


def residuals(name: str, title: str, edges: Floats, counts: Floats) -> str:
    """Draw how far predictions are off; the bars add up to 100%.

    Args:
        name: A name of its own within the page.
        title: What is seen, for a screen reader.
        edges: (K + 1,) ends of the bins of predicted less actual.
        counts: (K,) rows in each.

    """
    with drawing(1, HIGH) as (figure, (ax,)):
        from matplotlib.ticker import MaxNLocator

        heights = counts / float(counts.sum())
        color = stand_in("model")
        ax.stairs(heights, edges, fill=True, color=color, alpha=0.28, lw=0)
        ax.stairs(heights, edges, color=color, lw=1.6, baseline=None)
        ax.axvline(0.0, color=stand_in("optimum"), ls=DASHES["optimum"], lw=1.4)
        ax.set_xlim(float(edges[0]), float(edges[-1]))
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]))
        ax.xaxis.set_major_formatter(lambda value, _: tick(value, ax.xaxis))
        shares(ax.yaxis)
        labels(ax, "predicted less actual", "share of the rows")
        return svg(figure, name, title)


def _around(values: Floats) -> tuple[float, float]:
    """Return limits of an axis that shows all of these."""
    low, high = float(values.min()), float(values.max())
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - pad, high + pad


def _bars(ax: "Axes", left: Floats, widths: Floats, samples: Floats) -> None:
    ax.bar(left, samples, widths, align="edge", color=stand_in("model"), alpha=0.75)
    most = float(samples.max())
    ax.set_ylim(0, most * 1.15)
    ax.set_yticks([0.0, round_down(most)])
    ax.yaxis.set_major_formatter(lambda value, _: compact(value))
    labels(ax, "", "rows in the bin")


def interval(rates: Floats, samples: Floats) -> tuple[Floats, Floats]:
    """Return Wilson's 95% interval of rates (K,) seen on samples (K,)."""
    z2 = 1.96**2 / samples
    center = (rates + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * (rates * (1 - rates) + z2 / 4)) / (1 + z2)
    return np.minimum(center - half, rates), np.maximum(center + half, rates)
