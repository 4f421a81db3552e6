"""What came out of a run, in words, beside what could have come out."""

import math
from typing import NamedTuple

from dlrm.metrics import HIGHER_IS_BETTER, SELECTING
from dlrm.reporting.record import Event, Record, values
from dlrm.reporting.words import LINEAR, in_sentence, measure, number, percent

DIRECTIONS = {
    name: 1 if name in HIGHER_IS_BETTER else -1 for names in SELECTING.values() for name in names
}
"""Metrics that have a better end, and whether it is the upper one."""


class Gap(NamedTuple):
    """A metric of a model between that of a baseline and the best possible."""

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
    between = Gap(*(measure(values(final, who).get(metric)) for who in Gap._fields))
    better = DIRECTIONS[metric] * (between.optimum - between.baseline)
    return between if math.isfinite(sum(between)) and better > 0 else None


def baseline_name(record: Record) -> str:
    """Return the name of the baseline in words."""
    name = str((record.final.get("baseline") or {}).get("name") or "baseline")
    return LINEAR[record.task] if name == "lr" else name


def verdict(record: Record) -> str:
    """Return what came out, in a sentence or two, or in a sentence for each label."""
    if record.split is None:
        return _unfinished(record)
    judged = [
        f"{one.labels[0]}: {_judged(one)}" if one.place else _judged(one) for one in record.by_label
    ]
    if record.size > 1:
        # The scores are those of several models
        name, members = record.headline, record.final.get("members") or ()
        alone = [measure(values(member, "model").get(name)) for member in members]
        mean = sum(alone) / len(alone) if alone and len(judged) == 1 else math.nan
        end = f"; each alone reaches {number(mean)} on average" if math.isfinite(mean) else ""
        judged.append(f"The scores are the {record.averaged} ({record.name}){end}.")
    return " ".join(judged)


def _judged(record: Record) -> str:
    """Say how good the predictions of one label are."""
    metrics, name, split = values(record.final, "model"), record.headline, str(record.split)
    value = measure(metrics.get(name))
    if math.isfinite(value):
        return f"{split.capitalize()} {in_sentence(name)} {number(value)}{_compared(record, value)}"
    rows = "rows" if not metrics.get("samples") else f"{number(metrics['samples'])} rows"
    if record.task == "regression":
        return f"{in_sentence(name)} is unknown for the {rows} of the {split} split."
    loss = f" Its log loss is {number(metrics['log_loss'])}." if metrics.get("log_loss") else ""
    return f"AUC is undefined: the {rows} of the {split} split hold one class only.{loss}"


def _compared(record: Record, value: float) -> str:
    """Say where the headline metric stands beside the baseline and the best possible."""
    final, metric, name = record.final, record.headline, baseline_name(record)
    best, rival = (measure(values(final, who).get(metric)) for who in ("optimum", "baseline"))
    possible = f"; the best possible on this generated log is {number(best)}"
    if between := gap(final, metric):
        if between.closed < 0:
            side = "below" if DIRECTIONS[metric] > 0 else "above"
            end = f"the model is still {side} {name}."
        elif between.closed >= 1:
            end = "the model is as good as the best possible, within the noise of the sample."
        else:
            end = f"the model closes {percent(between.closed)} of the gap."
        return f"{possible}, {name} reaches {number(rival)}: {end}"
    if math.isfinite(rival):
        side = "above" if value >= rival else "below"
        return f", {number(abs(value - rival))} {side} {name}, which reaches {number(rival)}."
    return f"{possible}." if math.isfinite(best) else _explained(final)


def _explained(final: Event) -> str:
    """Say how much of the label's variance, or of its uncertainty, the predictions explain."""
    metrics = values(final, "model")
    r2, entropy = measure(metrics.get("r2")), measure(metrics.get("normalized_entropy"))
    if math.isfinite(r2):
        if r2 <= 0:
            return (
                f". With an R² of {number(r2)} it is no better than always saying the mean label."
            )
        return f". It predicts {percent(r2)} of the label's variance."
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
    text, latest = (
        f"Not finished: the last logged step is {number(record.last_step)}.",
        record.latest,
    )
    if not latest:
        loss = measure(record.steps[-1].get("loss")) if record.steps else math.nan
        known = f" The training loss there is {number(loss)}."
        return text + known if math.isfinite(loss) else text
    value = measure(latest.get(record.headline))
    shown = number(value) if math.isfinite(value) else "undefined (one class only)"
    name = in_sentence(record.headline)
    if len(record.labels) > 1:
        name += f" of {record.labels[0]}"
    step = number(latest.get("step"))
    return f"{text} The latest {latest.get('split')} {name}, at step {step}, is {shown}."
