"""What came out of a run, in words, beside what could have come out."""

import math
from dataclasses import dataclass

from dlrm.metrics import HIGHER_IS_BETTER, SELECTING
from dlrm.reporting.record import Event, Record
from dlrm.reporting.words import in_sentence, measure, number, percent

BASELINES = {
    "classification": {"lr": "logistic regression"},
    "regression": {"lr": "linear regression"},
}
"""Task -> names of baselines in words; others are shown as they are."""

DIRECTIONS = {
    name: 1 if name in HIGHER_IS_BETTER else -1 for names in SELECTING.values() for name in names
}
"""Metrics that have a better end, and whether it is the upper one."""

WHO = ("baseline", "model", "optimum")


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
    """Return the gap in a metric; None unless all three are known and the optimum is better.

    Calibration has none: it is best at 1, not at an end, and the truth's own differs from 1 only by
    the luck of the sample. Positive rate and samples are no achievements.
    """
    if metric not in DIRECTIONS:
        return None
    between = Gap(*(measure(values(final, who).get(metric)) for who in WHO))
    better = DIRECTIONS[metric] * (between.optimum - between.baseline)
    known = math.isfinite(between.baseline + between.model + between.optimum)
    return between if known and better > 0 else None


def values(final: Event, who: str) -> Event:
    """Return the metrics of the `model`, the `baseline` or the `optimum`; empty when unknown."""
    metrics = final.get({"model": "metrics"}.get(who, who)) or {}
    if who == "baseline" and isinstance(metrics, dict):
        metrics = metrics.get("metrics") or {}
    return metrics if isinstance(metrics, dict) else {}


def baseline_name(record: Record) -> str:
    """Return the name of the baseline in words."""
    name = str((record.final.get("baseline") or {}).get("name") or "baseline")
    return BASELINES[record.task].get(name, name)


def verdict(record: Record) -> str:
    """Return what came out, in a sentence or two, or in a sentence for each label."""
    if record.split is None:
        return _unfinished(record)
    if len(record.labels) > 1:
        alone = [
            f"{label_record.labels[0]}: {_judged(label_record)}" for label_record in record.by_label
        ]
        return " ".join(alone) + _averaged(record, record.headline)
    return _judged(record) + _averaged(record, record.headline)


def _judged(record: Record) -> str:
    """Say how good the predictions of one label are."""
    metrics, name = values(record.final, "model"), record.headline
    value = measure(metrics.get(name))
    split = str(record.split)
    if math.isfinite(value):
        return f"{split.capitalize()} {in_sentence(name)} {number(value)}{_compared(record, value)}"
    rows = "rows" if not metrics.get("samples") else f"{number(metrics['samples'])} rows"
    if record.task == "regression":
        return f"{in_sentence(name)} is unknown for the {rows} of the {split} split."
    loss = f" Its log loss is {number(metrics['log_loss'])}." if metrics.get("log_loss") else ""
    return f"AUC is undefined: the {rows} of the {split} split hold one class only.{loss}"


def _averaged(record: Record, name: str) -> str:
    """Say that the scores are those of several models, and what one of them reaches."""
    if record.size == 1:
        return ""
    members = record.final.get("members") or ()
    alone = [measure(values(member, "model").get(name)) for member in members]
    mean = sum(alone) / len(alone) if alone and len(record.labels) == 1 else math.nan
    end = f"; each alone reaches {number(mean)} on average" if math.isfinite(mean) else ""
    return f" The scores are the {record.averaged} ({record.name}){end}."


def _compared(record: Record, value: float) -> str:
    """Say where the headline metric stands beside the baseline and the best possible."""
    final, metric = record.final, record.headline
    best = measure(values(final, "optimum").get(metric))
    rival, name = measure(values(final, "baseline").get(metric)), baseline_name(record)
    known, between = math.isfinite(best), gap(final, metric)
    if between is not None:
        if between.closed < 0:
            side = "below" if DIRECTIONS[metric] > 0 else "above"
            end = f"the model is still {side} {name}."
        elif between.closed >= 1:
            end = "the model is as good as the best possible, within the noise of the sample."
        else:
            end = f"the model closes {percent(between.closed)} of the gap."
        return (
            f"; the best possible on this generated log is {number(best)},"
            f" {name} reaches {number(rival)}: {end}"
        )
    if math.isfinite(rival):
        side = "above" if value >= rival else "below"
        return f", {number(abs(value - rival))} {side} {name}, which reaches {number(rival)}."
    if known:
        return f"; the best possible on this generated log is {number(best)}."
    return _explained(final) if record.task == "regression" else _certain(final)


def _explained(final: Event) -> str:
    """Say how much of the label's variance is predicted."""
    r2 = measure(values(final, "model").get("r2"))
    if not math.isfinite(r2):
        return "."
    if r2 <= 0:
        return f". With an R² of {number(r2)} it is no better than always saying the mean label."
    return f". It predicts {percent(r2)} of the label's variance."


def _certain(final: Event) -> str:
    """Say how much of the uncertainty is gone."""
    entropy = measure(values(final, "model").get("normalized_entropy"))
    if not math.isfinite(entropy):
        return "."
    if entropy >= 1:
        return (
            f". With a normalized entropy of {number(entropy)} its probabilities are no better than"
            " always saying the positive rate."
        )
    return (
        f". It removes {percent(1 - entropy)} of the uncertainty that is left when one always says"
        f" the positive rate (normalized entropy {number(entropy)})."
    )


def _unfinished(record: Record) -> str:
    if record.size > 1:
        done = sum(bool(member.finals) for member in record.members)
        return f"Not finished: {done} of {record.size} members are trained."
    if not record.last_step:
        return "Nothing has been measured yet: this run has no logged step."
    text = f"Not finished: the last logged step is {number(record.last_step)}."
    if record.latest is None:
        loss = measure(record.steps[-1].get("loss")) if record.steps else math.nan
        there = f" The training loss there is {number(loss)}."
        return text + there if math.isfinite(loss) else text
    value = measure(record.latest.get(record.headline))
    shown = number(value) if math.isfinite(value) else "undefined (one class only)"
    name = in_sentence(record.headline)
    if len(record.labels) > 1:
        name += f" of {record.labels[0]}"
    return (
        f"{text} The latest {record.latest.get('split')} {name}, at step"
        f" {number(record.latest.get('step'))}, is {shown}."
    )
