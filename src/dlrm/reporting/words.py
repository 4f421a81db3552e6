"""Numbers as people read them, and what metrics are called."""

import math
from collections.abc import Mapping

from dlrm.schema import Task

METRICS = {
    "auc": "AUC",
    "log_loss": "Log loss",
    "normalized_entropy": "Normalized entropy",
    "accuracy": "Accuracy",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R²",
    "bias": "Bias",
    "calibration": "Calibration",
    "ece": "ECE",
    "click_rate": "Positive rate",
    "mean_label": "Mean label",
    "samples": "Samples",
}
"""The metrics of an evaluation, in the order in which they are shown."""

LINEAR: dict[Task, str] = {
    "classification": "logistic regression",
    "regression": "linear regression",
}
"""Task -> what its linear model is called."""


def in_sentence(name: str) -> str:
    """Return what a metric is called within a sentence: `AUC`, `log loss`."""
    label = METRICS.get(name, name.replace("_", " "))
    return label if label.isupper() or label == "R²" else label.lower()


UNKNOWN = "–"


def measure(value: object, default: float = math.nan) -> float:
    """Return a number from JSON as a float; `default` for null, text and everything else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return default


def number(value: object, decimals: int = 4) -> str:
    """Return a number with thousands separators, e.g. `0.8123` or `12,800`."""
    if isinstance(value, bool) or (value is not None and not isinstance(value, int | float)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{measure(value):.4g}"
    if value is None or math.isnan(value):
        return UNKNOWN
    if abs(value) >= 1e9 or 0 < abs(value) < 0.5 * 10**-decimals:
        return f"{value:.3g}"
    return f"{value:,.{decimals}f}"


def signed(value: float | None) -> str:
    """Return a change with its sign, e.g. `-0.00008`."""
    return UNKNOWN if value is None or math.isnan(value) else f"{value:+.5f}"


def interval(metrics: Mapping[str, object], name: str) -> str:
    """Return where a metric lies, e.g. `0.8101 to 0.8145`; nothing where that is not known."""
    low, high = (measure(metrics.get(f"{name}_{end}")) for end in ("low", "high"))
    return f"{number(low)} to {number(high)}" if math.isfinite(low + high) else ""


def compact(value: float) -> str:
    """Return a count that fits beside an axis, e.g. `950`, `12,000`, `1.5M`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}" if abs(value) < 1e15 else f"{value:.3g}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def rate(value: float) -> str:
    """Return a measured rate with three digits, e.g. `1,935`, `451`, `78.8`."""
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(share: float) -> str:
    """Return a share in percent with the decimals that it needs, e.g. `86%` or `0.04%`."""
    if not math.isfinite(share):
        return UNKNOWN
    size = abs(share) * 100
    decimals = 0 if size >= 10 or size == 0 else 1 if size >= 1 else 2
    if 0 < size < 0.01:
        return "<0.01%"
    return f"{share * 100:.{decimals}f}%"


def duration(seconds: float) -> str:
    """Return a duration, e.g. `3.2 s`, `4 min 05 s`, `2 h 14 min`."""
    if not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min"
