"""What came out of a run, in words, beside what could have come out."""

import math
from dataclasses import dataclass

from dlrm.reporting.record import Event, Record, measure
from dlrm.reporting.words import number, percent

BASELINES = {"lr": "logistic regression"}
"""Names of baselines in words; others are shown as they are."""

DIRECTIONS = {"auc": 1, "log_loss": -1, "normalized_entropy": -1, "accuracy": 1}
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
    the luck of the sample. Click rate and samples are no achievements.
    """
    if metric not in DIRECTIONS:
        return None
    found = Gap(*(measure(values(final, who).get(metric)) for who in WHO))
    better = DIRECTIONS[metric] * (found.optimum - found.baseline)
    known = math.isfinite(found.baseline + found.model + found.optimum)
    return found if known and better > 0 else None


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
    return f"{split} AUC {number(auc)}{_compared(final, auc)}{_averaged(record)}"


def _averaged(record: Record) -> str:
    """Say that the scores are those of several models, and what one of them reaches."""
    if record.size == 1:
        return ""
    members = record.final.get("members") or ()
    alone = [measure(values(each, "model").get("auc")) for each in members]
    mean = sum(alone) / len(alone) if alone else math.nan
    end = f"; each alone reaches {number(mean)} on average" if math.isfinite(mean) else ""
    return f" The scores are the {record.averaged} ({record.name}){end}."


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
    auc = measure(record.latest.get("auc"))
    shown = number(auc) if math.isfinite(auc) else "undefined (one class only)"
    return (
        f"{text} The latest {record.latest.get('split')} AUC, at step"
        f" {number(record.latest.get('step'))}, is {shown}."
    )
