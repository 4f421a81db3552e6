"""Numbers and verdicts as people read them."""

import math
import shlex
from dataclasses import dataclass

from dlrm.reporting.record import Event, Record, measure

METRICS = {
    "auc": "AUC",
    "log_loss": "Log loss",
    "normalized_entropy": "Normalized entropy",
    "accuracy": "Accuracy",
    "calibration": "Calibration",
    "click_rate": "Click rate",
    "samples": "Samples",
}
"""The metrics of an evaluation, in the order in which they are shown."""

MEANINGS = {
    "auc": "how often a clicked row scores above one that was not; higher is better",
    "log_loss": "mean −log of the probability given to what happened; lower is better",
    "normalized_entropy": "log loss over that of always saying the mean click rate; below 1",
    "accuracy": "share of rows on the right side of one half; higher is better",
    "calibration": "mean score over click rate; 1 is right",
    "click_rate": "share of rows that were clicked",
    "samples": "rows evaluated",
}
"""What each metric says, in a few words."""

BASELINES = {"lr": "logistic regression"}
"""Names of baselines in words; others are shown as they are."""

UNKNOWN = "–"


@dataclass(frozen=True, slots=True)
class Gap:
    """Where a model stands between a baseline and the best possible."""

    baseline: float
    model: float
    optimum: float

    @property
    def closed(self) -> float:
        """Share of the way from the baseline to the optimum; negative when worse than both."""
        return (self.model - self.baseline) / (self.optimum - self.baseline)


def gap(final: Event, metric: str) -> Gap | None:
    """Return the gap in a metric; None unless all three are known and the optimum is better."""
    found = Gap(*(measure(values(final, who).get(metric)) for who in WHO))
    better = found.optimum - found.baseline
    if metric in ("log_loss", "normalized_entropy"):
        better = -better
    known = math.isfinite(found.baseline + found.model + found.optimum)
    return found if known and better > 0 else None


WHO = ("baseline", "model", "optimum")


def values(final: Event, who: str) -> Event:
    """Return the metrics of the `model`, the `baseline` or the `optimum`; empty when unknown."""
    found = final.get({"model": "metrics"}.get(who, who)) or {}
    if who == "baseline" and isinstance(found, dict):
        found = found.get("metrics") or {}
    return found if isinstance(found, dict) else {}


def baseline_name(final: Event) -> str:
    """Return the name of the baseline in words."""
    name = str((final.get("baseline") or {}).get("name") or "baseline")
    return BASELINES.get(name, name)


def number(value: object, decimals: int = 4) -> str:
    """Return a number with thousands separators, e.g. `0.8123` or `12,800`."""
    if isinstance(value, bool) or (value is not None and not isinstance(value, int | float)):
        return str(value)
    if value is None or math.isnan(value):
        return UNKNOWN
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10**15 else f"{measure(value):.4g}"
    if abs(value) >= 1e9 or 0 < abs(value) < 0.5 * 10**-decimals:
        return f"{value:.3g}"
    return f"{value:,.{decimals}f}"


def metric(name: str, value: object) -> str:
    """Return a metric's value as it is shown everywhere."""
    return number(value) if name != "samples" else number(value, 0)


def compact(value: float) -> str:
    """Return a count that fits beside an axis, e.g. `950`, `12,000`, `1.5M`."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}" if abs(value) < 1e15 else f"{value:.3g}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


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


def verdict(record: Record) -> str:
    """Return what came out, in a sentence or two."""
    if record.split is None:
        return _unfinished(record)
    final, split = record.final, record.split.capitalize()
    metrics = values(final, "model")
    auc = measure(metrics.get("auc"))
    if not math.isfinite(auc):
        loss = f" Its log loss is {number(metrics['log_loss'])}." if metrics.get("log_loss") else ""
        rows = "rows" if not metrics.get("samples") else f"{number(metrics['samples'])} rows"
        return (
            f"AUC is undefined: the {rows} of the {record.split} split hold one class only.{loss}"
        )
    return f"{split} AUC {number(auc)}{_compared(final, auc)}"


def _compared(final: Event, auc: float) -> str:
    best = measure(values(final, "optimum").get("auc"))
    rival, name = measure(values(final, "baseline").get("auc")), baseline_name(final)
    known, between = math.isfinite(best), gap(final, "auc")
    if between is not None:
        if between.closed < 0:
            end = f"the model is still below {name}."
        elif between.closed >= 1:
            end = "the model is as good as the best possible, within the noise of the sample."
        else:
            end = f"the model closes {percent(between.closed)} of the gap."
        return (
            f"; the best possible on this generated log is {number(best)},"
            f" {name} reaches {number(rival)}: {end}"
        )
    if math.isfinite(rival):
        side = "above" if auc >= rival else "below"
        return f", {number(abs(auc - rival))} {side} {name}, which reaches {number(rival)}."
    if known:
        return f"; the best possible on this generated log is {number(best)}."
    entropy = measure(values(final, "model").get("normalized_entropy"))
    if not math.isfinite(entropy):
        return "."
    if entropy >= 1:
        return (
            f". With a normalized entropy of {number(entropy)} its probabilities are no better than"
            " always saying the mean click rate."
        )
    return (
        f". It removes {percent(1 - entropy)} of the uncertainty that is left when one always says"
        f" the mean click rate (normalized entropy {number(entropy)})."
    )


def _unfinished(record: Record) -> str:
    if not record.last_step:
        return "Nothing has been measured yet: this run has no logged step."
    text = f"Not finished: the last logged step is {number(record.last_step)}."
    if record.latest is None:
        loss = measure(record.steps[-1].get("loss")) if record.steps else math.nan
        there = f" The training loss there is {number(loss)}."
        return text + there if math.isfinite(loss) else text
    auc = measure(record.latest.get("auc"))
    shown = number(auc) if math.isfinite(auc) else "undefined (one class only)"
    return (
        f"{text} The latest {record.latest.get('split')} AUC, at step"
        f" {number(record.latest.get('step'))}, is {shown}."
    )


def commands(record: Record) -> list[tuple[str, str]]:
    """Return the commands to type next: what each does, and its line, quoted for a shell."""
    run = str(record.path)
    made = [str(word) for word in record.environment.get("command") or ()]
    resume = made if made[:2] == ["dlrm", "train"] else ["dlrm", "train", record.recipe]
    if not any(word == "--run" or word.startswith("--run=") for word in resume):
        resume = [*resume, "--run", run]
    if "--resume" not in resume:
        resume = [*resume, "--resume"]
    lines = [("This run was made by", made)] if made else []
    lines += [
        ("Take it up again where it stopped", resume),
        ("Evaluate it again", ["dlrm", "eval", run, "--split", record.split or "test"]),
        ("Score new rows", ["dlrm", "predict", run, "RAW", "--out", "scores.parquet"]),
        ("Write this report again", ["dlrm", "report", run]),
    ]
    return [(what, shlex.join(words)) for what, words in lines]
