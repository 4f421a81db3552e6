"""The figures of a run's report about its predictions: how good they are, and why."""

import math
from collections.abc import Sequence

import numpy as np

from dlrm.reporting.charts.drawing import (
    COLOR,
    HIGH,
    clipped,
    diagonal,
    drawing,
    labels,
    level,
    name_rows,
    round_down,
    shares,
    ticks,
)
from dlrm.reporting.page import Figure, Key
from dlrm.reporting.record import Event, Record
from dlrm.reporting.series import Floats
from dlrm.reporting.verdict import values
from dlrm.reporting.words import compact, in_sentence, measure, percent

COLUMNS = 20
"""Columns that are drawn by how much they matter."""
RIGHT = Key("exactly right", "optimum", dashes="5 2.5")


def figures(record: Record) -> list[Figure]:
    """Return the figures about the predictions of one label."""
    numbers = record.task == "regression"
    two = (
        [predicted(record), residuals(record)]
        if numbers
        else [calibration(record), histogram(record)]
    )
    return [*two, columns(record)] if record.importance else two


def calibration(record: Record) -> Figure:
    """Draw the positive rate of each bin of scores against its mean score."""
    title, keys = "Calibration", ("low", "high", "mean_score", "click_rate", "samples")
    if (bins := _bins(record, "calibration_bins", keys)) is None:
        return Figure(title, "", "it needs the final evaluation")
    lefts, rights, means, rates, samples = bins
    ratio = measure(values(record.final, "model").get("calibration"))
    if math.isfinite(ratio):
        off = f"{percent(abs(ratio - 1))} too {'high' if ratio > 1 else 'low'}"
        title += f": scores are on the whole {'right' if abs(ratio - 1) < 0.005 else off}"
    least, most = float(samples.min()), float(samples.max())
    # Bins made to hold equally many rows tell nothing by their counts; the others are drawn below
    alike = most <= 1.5 * least
    with drawing(_named(record, "calibration"), HIGH, rows=1 if alike else 2) as drawn:
        ax, below = drawn.axes[0], drawn.axes[-1]
        end = min(1.0, 1.06 * float(max(means.max(), 0.0 if alike else rights.max())) or 1.0)
        diagonal(ax, 0, 1)
        low, high = interval(rates, samples)
        ax.vlines(means, low, high, color=COLOR["model"], lw=1.2, alpha=0.6)
        ax.plot(means, rates, "o", color=COLOR["model"], ms=4.5, clip_on=False, zorder=3)
        ax.set_xlim(0, end)
        ax.set_ylim(0, min(1.0, 1.06 * float(max(high.max(), means.max()))))
        shares(ax.yaxis)
        labels(ax, "", "positive rate, with its 95% interval")
        if not alike:
            # Bins of equal scores have no width, but are there
            widths = np.maximum(rights - lefts - 0.006 * end, 0.006 * end)
            below.bar(lefts, samples, widths, align="edge", color=COLOR["model"], alpha=0.75)
            below.set_ylim(0, most * 1.15)
            below.set_yticks([0.0, round_down(most)])
            below.yaxis.set_major_formatter(lambda value, _: compact(value))
            labels(below, "", "rows in the bin")
        shares(below.xaxis)
        below.set_xlabel("mean score in the bin", loc="right")
    size = " to ".join(dict.fromkeys((compact(least), compact(most))))
    note = f"{compact(float(samples.sum()))} rows in {len(samples)} bins of {size} rows."
    legend = [Key(f"{record.split} rows, by score", "model", "dot"), RIGHT]
    return Figure(title, drawn.svg, note, legend)


def histogram(record: Record) -> Figure:
    """Draw how the scores of either label are spread; each label's bars add up to 100%."""
    title = "Scores by label"
    held = _counts(record, "histogram", ("edges", "negatives", "positives"))
    if held is None:
        return Figure(title, "", "they need the final evaluation")
    edges, negatives, positives = held
    filled = np.flatnonzero(negatives + positives)
    if not len(filled):
        return Figure(title, "", "no row was scored")
    if negatives.any() and positives.any():
        middle = (edges[:-1] + edges[1:]) / 2
        yes, no = (float((middle * n).sum() / n.sum()) for n in (positives, negatives))
        title += f": {percent(yes)} on average where positive, {percent(no)} where not"
    with drawing(_named(record, "histogram"), HIGH) as drawn:
        ax = drawn.axes[0]
        for counts, role, dash in ((negatives, "model", "-"), (positives, "train", (0, (4, 1.5)))):
            if counts.any():
                heights = counts / float(counts.sum())
                ax.stairs(heights, edges, fill=True, color=COLOR[role], alpha=0.28, lw=0)
                ax.stairs(heights, edges, color=COLOR[role], lw=1.6, ls=dash, baseline=None)
        ax.set_xlim(float(edges[filled[0]]), float(edges[filled[-1] + 1]))
        ax.set_ylim(bottom=0)
        shares(ax.xaxis)
        shares(ax.yaxis)
        labels(ax, "score", "share of the label's rows")
    legend = [
        Key(f"negative ({compact(float(negatives.sum()))} rows)", "model"),
        Key(f"positive ({compact(float(positives.sum()))} rows)", "train", dashes="4 1.5"),
    ]
    return Figure(title, drawn.svg, "The bars of each label add up to 100%.", legend)


def predicted(record: Record) -> Figure:
    """Draw actual values against predicted ones."""
    title = "Predicted against actual"
    keys = ("mean_prediction", "mean_label", "label_low", "label_high", "samples")
    if (bins := _bins(record, "prediction_bins", keys)) is None:
        return Figure(title, "", "it needs the final evaluation")
    means, actual, low, high, samples = bins
    r2 = measure(values(record.final, "model").get("r2"))
    if math.isfinite(r2) and r2 > 0:
        title += f": {percent(r2)} of the variance is predicted"
    with drawing(_named(record, "predicted"), HIGH) as drawn:
        ax = drawn.axes[0]
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
    note = (
        f"{compact(float(samples.sum()))} rows in {len(samples)} bins; the lines hold the middle "
        "80% of the actual values of each."
    )
    legend = [Key(f"mean of {record.split} rows, by prediction", "model", "dot"), RIGHT]
    return Figure(title, drawn.svg, note, legend)


def residuals(record: Record) -> Figure:
    """Draw how far predictions are off; the bars add up to 100%."""
    held = _counts(record, "residuals", ("edges", "counts"))
    if held is None:
        return Figure("Residuals", "", "they need the final evaluation")
    edges, counts = held
    if not counts.any():
        return Figure("Residuals", "", "no row was predicted")
    with drawing(_named(record, "residuals"), HIGH) as drawn:
        ax, heights = drawn.axes[0], counts / float(counts.sum())
        ax.stairs(heights, edges, fill=True, color=COLOR["model"], alpha=0.28, lw=0)
        ax.stairs(heights, edges, color=COLOR["model"], lw=1.6, baseline=None)
        level(ax, 0.0, "optimum", vertical=True)
        ax.set_xlim(float(edges[0]), float(edges[-1]))
        ax.set_ylim(bottom=0)
        ticks(ax.xaxis)
        shares(ax.yaxis)
        labels(ax, "predicted less actual", "share of the rows")
    note, outside = (
        f"{compact(float(counts.sum()))} rows.",
        record.final["residuals"].get("outside"),
    )
    if measure(outside, 0.0) > 0:
        note += f" {compact(outside)} more are further off and outside of the frame."
    legend = [Key(f"{record.split} rows", "model"), RIGHT]
    return Figure("Residuals: predicted less actual", drawn.svg, note, legend)


def columns(record: Record) -> Figure:
    """Draw how much worse a metric is without each column, with its interval."""
    title = "Which columns matter"

    def of(column: Event, name: str) -> list[float]:
        return [measure(column.get(key)) for key in (name, f"{name}_low", f"{name}_high")]

    for name in ("auc", "log_loss", "rmse"):
        known = {
            str(column["column"]): ends
            for column in record.importance.get("columns") or ()
            if column.get("column") and all(map(math.isfinite, ends := of(column, name)))
        }
        if known:
            break
    else:
        return Figure(title, "", "no change of a metric was measured")
    shown, color = list(known)[:COLUMNS], COLOR["model"]
    changes, low, high = np.asarray([known[column] for column in shown]).T
    with drawing(_named(record, "columns"), 0.24 * len(shown) + 0.85, grid="x") as drawn:
        ax = drawn.axes[0]
        level(ax, 0.0, "optimum", vertical=True)
        ax.hlines(range(len(shown)), low, high, color=color, lw=1.4)
        ax.plot(changes, range(len(shown)), "o", color=color, ms=4.5)
        name_rows(ax, [clipped(column, 24) for column in shown])
        labels(ax, f"{in_sentence(name)} worse by", "")
    many = compact(measure(record.importance.get("rows"), 0.0))
    note = (
        f"How much worse the {in_sentence(name)} is where the values of a column are exchanged "
        f"among {many} {record.importance.get('split', '')} rows. Columns that say the same stand "
        "in for each other."
    )
    if len(known) > COLUMNS:
        note += f" {len(known) - COLUMNS} columns that matter less are not drawn."
    return Figure(title, drawn.svg, note, [Key("with its 95% interval", "model", "dot")])


def interval(rates: Floats, samples: Floats) -> tuple[Floats, Floats]:
    """Return Wilson's 95% interval of rates (K,) seen on samples (K,)."""
    z2 = 1.96**2 / samples
    center = (rates + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * (rates * (1 - rates) + z2 / 4)) / (1 + z2)
    return np.minimum(center - half, rates), np.maximum(center + half, rates)


def _named(record: Record, name: str) -> str:
    """Return the name of a drawing, its own within the page."""
    return f"{name}-{record.place}" if record.place else name


def _around(numbers: Floats) -> tuple[float, float]:
    """Return limits of an axis that shows all of these."""
    low, high = float(numbers.min()), float(numbers.max())
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - pad, high + pad


def _bins(record: Record, name: str, keys: Sequence[str]) -> Floats | None:
    """Return (keys, bins) numbers of the bins of a final evaluation; None where there are none."""
    rows = [[measure(row.get(key)) for key in keys] for row in record.final.get(name) or ()]
    known = [row for row in rows if all(map(math.isfinite, row)) and row[-1] > 0]
    return np.asarray(known).T if known else None


def _counts(record: Record, name: str, keys: Sequence[str]) -> list[Floats] | None:
    """Return edges and counts of a histogram; None where they are not whole."""
    held = record.final.get(name) or {}
    edges, *counts = (np.asarray([measure(v) for v in held.get(key) or ()]) for key in keys)
    whole = all(len(edges) == len(heights) + 1 for heights in counts)
    return (
        [edges, *counts] if whole and np.isfinite(np.concatenate([edges, *counts])).all() else None
    )
