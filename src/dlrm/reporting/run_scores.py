"""The figures of a run's report about its predictions: how good they are, and why."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dlrm.reporting.charts.curves import Floats
from dlrm.reporting.charts.drawing import (
    COLOR,
    HIGH,
    Figure,
    Key,
    clipped,
    diagonal,
    drawing,
    labels,
    level,
    line_style,
    name_rows,
    shares,
    ticks,
)
from dlrm.reporting.record import Record, values
from dlrm.reporting.words import compact, in_sentence, measure, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 20
"""Columns that are drawn by how much they matter."""
ENDS = ("", "_low", "_high")
"""Ends of the names of a change and of its interval."""
RIGHT = Key("exactly right", "optimum", dashes="5 2.5")


def figures(record: Record) -> list[Figure]:
    """Return the figures about the predictions of one label."""
    drawn = (predicted, residuals) if record.task == "regression" else (calibration, histogram)
    return [draw(record) for draw in (*drawn, *((columns,) if record.importance else ()))]


def calibration(record: Record) -> Figure:
    """Draw the positive rate of each bin of scores against its mean score."""
    title, keys = "Calibration", ("mean_score", "click_rate", "samples")
    if (bins := _bins(record, "calibration_bins", keys)) is None:
        return Figure(title, "it needs the final evaluation")
    means, rates, samples = bins
    ratio = measure(values(record.final, "model").get("calibration"))
    if math.isfinite(ratio):
        off = f"{percent(abs(ratio - 1))} too {'high' if ratio > 1 else 'low'}"
        title += f": scores are on the whole {'right' if abs(ratio - 1) < 0.005 else off}"
    with drawing(_named(record, "calibration"), title, HIGH) as (figure, ax):
        low, high = interval(rates, samples)
        _dots(ax, means, rates, low, high)
        ax.set_xlim(0, min(1.0, 1.06 * float(means.max()) or 1.0))
        ax.set_ylim(0, min(1.0, 1.06 * float(max(high.max(), means.max()))))
        shares(ax.xaxis)
        shares(ax.yaxis)
        labels(ax, "mean score in the bin", "positive rate, with its 95% interval")
    ends = " to ".join(dict.fromkeys(map(compact, (float(samples.min()), float(samples.max())))))
    figure.note = f"{compact(float(samples.sum()))} rows in {len(samples)} bins of {ends} rows."
    figure.legend = [Key(f"{record.split} rows, by score", "model", "dot"), RIGHT]
    return figure


def predicted(record: Record) -> Figure:
    """Draw actual values against predicted ones."""
    title = "Predicted against actual"
    keys = ("mean_prediction", "mean_label", "label_low", "label_high", "samples")
    if (bins := _bins(record, "prediction_bins", keys)) is None:
        return Figure(title, "it needs the final evaluation")
    means, actual, low, high, samples = bins
    r2 = measure(values(record.final, "model").get("r2"))
    if math.isfinite(r2) and r2 > 0:
        title += f": {percent(r2)} of the variance is predicted"
    with drawing(_named(record, "predicted"), title, HIGH) as (figure, ax):
        _dots(ax, means, actual, low, high)
        ax.set_xlim(*_around(means))
        ax.set_ylim(*_around(np.concatenate([low, high, actual])))
        ticks(ax.xaxis)
        ticks(ax.yaxis)
        labels(ax, "mean prediction in the bin", "actual value, with its middle 80%")
    figure.note = (
        f"{compact(float(samples.sum()))} rows in {len(samples)} bins; the lines hold the middle "
        "80% of the actual values of each."
    )
    figure.legend = [Key(f"mean of {record.split} rows, by prediction", "model", "dot"), RIGHT]
    return figure


def histogram(record: Record) -> Figure:
    """Draw how the scores of either label are spread; each label's bars add up to 100%."""
    title = "Scores by label"
    held = _counts(record, "histogram", ("edges", "negatives", "positives"))
    if held is None:
        return Figure(title, "they need the final evaluation")
    edges, negatives, positives = held
    filled = np.flatnonzero(negatives + positives)
    if not len(filled):
        return Figure(title, "no row was scored")
    if negatives.any() and positives.any():
        middle = (edges[:-1] + edges[1:]) / 2
        yes, no = (np.average(middle, weights=counts) for counts in (positives, negatives))
        title += f": {percent(yes)} on average where positive, {percent(no)} where not"
    with drawing(_named(record, "histogram"), title, HIGH) as (figure, ax):
        _stairs(ax, negatives, edges, "model")
        _stairs(ax, positives, edges, "train", "4 1.5")
        ax.set_xlim(float(edges[filled[0]]), float(edges[filled[-1] + 1]))
        shares(ax.xaxis)
        labels(ax, "score", "share of the label's rows")
    figure.note = "The bars of each label add up to 100%."
    figure.legend = [
        Key(f"negative ({compact(float(negatives.sum()))} rows)", "model"),
        Key(f"positive ({compact(float(positives.sum()))} rows)", "train", dashes="4 1.5"),
    ]
    return figure


def residuals(record: Record) -> Figure:
    """Draw how far predictions are off; the bars add up to 100%."""
    held = _counts(record, "residuals", ("edges", "counts"))
    if held is None:
        return Figure("Residuals", "they need the final evaluation")
    edges, counts = held
    if not counts.any():
        return Figure("Residuals", "no row was predicted")
    title = "Residuals: predicted less actual"
    with drawing(_named(record, "residuals"), title, HIGH) as (figure, ax):
        _stairs(ax, counts, edges, "model")
        level(ax, 0.0, "optimum", vertical=True)
        ax.set_xlim(float(edges[0]), float(edges[-1]))
        ticks(ax.xaxis)
        labels(ax, "predicted less actual", "share of the rows")
    figure.note = f"{compact(float(counts.sum()))} rows."
    if (outside := measure(record.final["residuals"].get("outside"))) > 0:
        figure.note += f" {compact(outside)} more are further off and outside of the frame."
    figure.legend = [Key(f"{record.split} rows", "model"), RIGHT]
    return figure


def columns(record: Record) -> Figure:
    """Draw how much worse a metric is without each column, with its interval."""
    title, listed = "Which columns matter", record.importance.get("columns") or ()

    def changes_of(name: str) -> dict[str, list[float]]:
        ends = {c["column"]: [measure(c.get(f"{name}{end}")) for end in ENDS] for c in listed}
        return {column: numbers for column, numbers in ends.items() if np.isfinite(numbers).all()}

    name = next(filter(changes_of, ("auc", "log_loss", "rmse")), None)
    if name is None:
        return Figure(title, "no change of a metric was measured")
    known = changes_of(name)
    shown, color = list(known)[:COLUMNS], COLOR["model"]
    changes, low, high = np.asarray([known[column] for column in shown]).T
    height = 0.24 * len(shown) + 0.85
    with drawing(_named(record, "columns"), title, height, grid="x") as (figure, ax):
        level(ax, 0.0, "optimum", vertical=True)
        ax.hlines(range(len(shown)), low, high, color=color, lw=1.4)
        ax.plot(changes, range(len(shown)), "o", color=color, ms=4.5)
        name_rows(ax, [clipped(column, 24) for column in shown])
        labels(ax, f"{in_sentence(name)} worse by", "")
    many = compact(measure(record.importance.get("rows"), 0.0))
    figure.note = (
        f"How much worse the {in_sentence(name)} is where the values of a column are exchanged "
        f"among {many} {record.importance.get('split', '')} rows. Columns that say the same stand "
        "in for each other."
    )
    if len(known) > COLUMNS:
        figure.note += f" {len(known) - COLUMNS} columns that matter less are not drawn."
    figure.legend = [Key("with its 95% interval", "model", "dot")]
    return figure


def interval(rates: Floats, samples: Floats) -> tuple[Floats, Floats]:
    """Return Wilson's 95% interval of rates (K,) seen on samples (K,)."""
    z2 = 1.96**2 / samples
    center = (rates + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * (rates * (1 - rates) + z2 / 4)) / (1 + z2)
    return np.minimum(center - half, rates), np.maximum(center + half, rates)


def _named(record: Record, name: str) -> str:
    """Return the name of a drawing, its own within the page."""
    return f"{name}-{record.place}" if record.place else name


def _dots(ax: "Axes", x: Floats, y: Floats, low: Floats, high: Floats) -> None:
    """Draw bins as dots with intervals, beside the line where both axes are equal."""
    diagonal(ax, min(x.min(), low.min(), 0.0), max(x.max(), high.max(), 1.0))
    ax.vlines(x, low, high, color=COLOR["model"], lw=1.2, alpha=0.6)
    ax.plot(x, y, "o", color=COLOR["model"], ms=4.5, clip_on=False, zorder=3)


def _stairs(ax: "Axes", counts: Floats, edges: Floats, role: str, dashes: str = "") -> None:
    """Draw counts, if there are any, as shares of their sum."""
    if counts.any():
        heights, color = counts / counts.sum(), COLOR[role]
        ax.stairs(heights, edges, fill=True, color=color, alpha=0.28, lw=0)
        ax.stairs(heights, edges, color=color, lw=1.6, ls=line_style(dashes), baseline=None)
    ax.set_ylim(bottom=0)
    shares(ax.yaxis)


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
    """Return edges and counts of a histogram; None where there is none."""
    held = record.final.get(name)
    return [np.asarray(held[key], np.float64) for key in keys] if held else None
