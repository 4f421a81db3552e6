"""The figures about the predictions of one label.

Of clicks: calibration, and how either label is scored. Of numbers: predicted against actual, and
how far off.
"""

import math

import numpy as np

from dlrm.reporting import charts
from dlrm.reporting.figures import SWATCHES, absent, figure, key
from dlrm.reporting.markup import Html, join
from dlrm.reporting.record import Record, measure
from dlrm.reporting.verdict import values
from dlrm.reporting.words import compact, percent

_BIN = ("low", "high", "mean_score", "click_rate")
_PREDICTIONS = ("mean_prediction", "mean_label", "label_low", "label_high")


def section(record: Record) -> Html:
    """Return the figures about the predictions."""
    if record.task == "regression":
        return join(predicted(record), residuals(record))
    return join(calibration(record), histogram(record))


def calibration(record: Record) -> Html:
    """Draw positive rate against score."""
    rows = [
        row
        for row in record.final.get("calibration_bins") or ()
        if measure(row.get("samples")) > 0
        and all(math.isfinite(measure(row.get(key))) for key in _BIN)
    ]
    if not rows:
        return absent("Calibration", "it needs the final evaluation")
    low, high, scores, rates, samples = np.asarray(
        [[measure(row[key]) for key in (*_BIN, "samples")] for row in rows]
    ).T
    ratio = measure(values(record.final, "model").get("calibration"))
    title = "Calibration"
    if math.isfinite(ratio):
        title += f": scores are on the whole {_off(ratio)}"
    drawing = charts.calibration(
        _name(record, "calibration"), title, np.stack([low, high], axis=1), scores, rates, samples
    )
    legend = [
        key(f"{record.split} rows, by score", "model", dot=True),
        key("exactly right", "optimum"),
    ]
    least, most = compact(float(samples.min())), compact(float(samples.max()))
    size = f"{least} rows" if least == most else f"{least} to {most} rows"
    note = f"{compact(float(samples.sum()))} rows in {len(rows)} bins of {size}."
    return figure(title, legend, drawing, note)


def histogram(record: Record) -> Html:
    """Draw the scores of either label."""
    counts = record.final.get("histogram") or {}
    edges, negatives, positives = (
        np.asarray([measure(value) for value in counts.get(key) or ()])
        for key in ("edges", "negatives", "positives")
    )
    whole = len(edges) == len(negatives) + 1 == len(positives) + 1
    if not whole or not np.isfinite(np.concatenate([edges, negatives, positives])).all():
        return absent("Scores by label", "they need the final evaluation")
    if not (negatives + positives).any():
        return absent("Scores by label", "no row was scored")
    title = "Scores by label"
    if negatives.any() and positives.any():
        middle = (edges[:-1] + edges[1:]) / 2
        yes, no = (
            float((middle * counted).sum() / counted.sum()) for counted in (positives, negatives)
        )
        title += f": {percent(yes)} on average where positive, {percent(no)} where not"
    drawing = charts.histogram(_name(record, "histogram"), title, edges, negatives, positives)
    legend = [
        key(f"negative ({compact(float(negatives.sum()))} rows)", "model"),
        key(
            f"positive ({compact(float(positives.sum()))} rows)", "train", SWATCHES["train-dashed"]
        ),
    ]
    return figure(title, legend, drawing, "The bars of each label add up to 100%.")


def predicted(record: Record) -> Html:
    """Draw actual values against predicted ones."""
    title = "Predicted against actual"
    rows = [
        row
        for row in record.final.get("prediction_bins") or ()
        if measure(row.get("samples")) > 0
        and all(math.isfinite(measure(row.get(key))) for key in _PREDICTIONS)
    ]
    if not rows:
        return absent(title, "it needs the final evaluation")
    means, labels, low, high, samples = np.asarray(
        [[measure(row[key]) for key in (*_PREDICTIONS, "samples")] for row in rows]
    ).T
    r2 = measure(values(record.final, "model").get("r2"))
    if math.isfinite(r2) and r2 > 0:
        title += f": {percent(r2)} of the variance is predicted"
    drawing = charts.predicted(_name(record, "predicted"), title, means, labels, low, high)
    legend = [
        key(f"mean of {record.split} rows, by prediction", "model", dot=True),
        key("exactly right", "optimum"),
    ]
    note = (
        f"{compact(float(samples.sum()))} rows in {len(rows)} bins; the lines hold the middle 80% "
        "of the actual values of each."
    )
    return figure(title, legend, drawing, note)


def residuals(record: Record) -> Html:
    """Draw how far predictions are off."""
    counts = record.final.get("residuals") or {}
    edges, rows = (
        np.asarray([measure(value) for value in counts.get(key) or ()])
        for key in ("edges", "counts")
    )
    if len(edges) != len(rows) + 1 or not np.isfinite(np.concatenate([edges, rows])).all():
        return absent("Residuals", "they need the final evaluation")
    if not rows.any():
        return absent("Residuals", "no row was predicted")
    title = "Residuals: predicted less actual"
    drawing = charts.residuals(_name(record, "residuals"), title, edges, rows)
    legend = [
        key(f"{record.split} rows", "model"),
        key("exactly right", "optimum"),
    ]
    inside = f"{compact(float(rows.sum()))} rows."
    outside = measure(counts.get("outside"), 0.0)
    if outside > 0:
        inside += f" {compact(outside)} more are further off and outside of the frame."
    return figure(title, legend, drawing, inside)


def _name(record: Record, name: str) -> str:
    """Return the name of a drawing, its own within the page."""
    return f"{name}-{record.place}" if record.place else name


def _off(ratio: float) -> str:
    if abs(ratio - 1) < 0.005:
        return "right"
    return f"{percent(abs(ratio - 1))} too {'high' if ratio > 1 else 'low'}"
