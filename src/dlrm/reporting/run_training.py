"""The figures of a run's report about its training, or about those of an ensemble's members."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from dlrm.metrics import SELECTING
from dlrm.reporting.charts.curves import (
    Level,
    Line,
    Window,
    curves,
    draw_line,
    line,
    line_keys,
    line_note,
    scale,
)
from dlrm.reporting.charts.drawing import COLOR, Figure, drawing, labels, shares, ticks
from dlrm.reporting.record import Event, Record, elapsed, values
from dlrm.reporting.verdict import DIRECTIONS, baseline_name
from dlrm.reporting.words import (
    METRICS,
    compact,
    duration,
    in_sentence,
    measure,
    number,
    percent,
)

UNITS = {
    "auc": "AUC",
    "accuracy": "share of rows that are right",
    "log_loss": "log loss per sample (nats)",
    "rmse": "RMSE, in units of the label",
    "mae": "MAE, in units of the label",
}
"""Metrics that are drawn over the steps, and what the axis says."""


def figures(record: Record) -> list[Figure]:
    """Return the figures about the training, or about those of an ensemble's members.

    Metrics of several labels are drawn with each of them, by `over_steps`.
    """
    if record.members:
        return _members(record)
    names = ("rmse", "mae") if record.task == "regression" else ("auc", "accuracy")
    metrics = [_metric(record, name) for name in names] if len(record.labels) == 1 else []
    return [*_loss(record), *metrics, throughput(record)]


def over_steps(record: Record) -> list[Figure]:
    """Return the figures about one of several labels over the steps."""
    names = ("rmse", "mae") if record.task == "regression" else ("log_loss", "auc")
    return [] if record.members else [_metric(record, name) for name in names]


def _loss(record: Record) -> list[Figure]:
    """Draw the loss over the steps; beside it the log loss, where training minimises another."""
    kind, title = _loss_name(record), "Training loss"
    steps = line("training, as it went", "train", _points(record.steps, "loss"))
    of_splits, alone = _splits(record, "log_loss"), len(record.labels) == 1
    log_loss = alone and record.task == "classification"
    if kind == "bce" and log_loss and len(steps) < 3:
        # A short training logs its loss rarely, but is measured all along
        steps = max(steps, of_splits[0], key=len)
    if len(steps) > 1:
        # The loss of one batch is mostly noise; the last tenth tells where it is
        end = float(steps.y[-max(1, len(steps) // 10) :].mean())
        title = f"Training loss goes from {number(float(steps.y[0]))} to {number(end)}"
    around = UNITS["log_loss"], _levels(record, "log_loss"), _ring(record, "log_loss")
    if kind == "bce" and log_loss:
        return [curves("loss", title, [steps, *of_splits[1:]], *around)]
    unit = f"{kind} per sample" if alone else f"{kind}, mean of the labels"
    figures = [curves("loss", title, [steps], unit)]
    return figures + ([curves("log-loss", "Log loss", of_splits, *around)] if log_loss else [])


def _metric(record: Record, name: str) -> Figure:
    """Draw a metric over the steps."""
    title, lines = METRICS[name], _splits(record, name)
    if record.split is None and not record.latest:
        return Figure(title, "nothing was evaluated yet")
    if not any(map(len, lines)):
        return Figure(title, "it is undefined where a split holds one class only")
    if judged := next((line for line in lines if line.role == "model" and len(line)), None):
        upwards = DIRECTIONS[name] > 0
        top = int(np.argmax(judged.y) if upwards else np.argmin(judged.y))
        most, when = number(float(judged.y[top])), number(int(judged.x[top]))
        reached = "is" if len(judged) == 1 else "peaks at" if upwards else "falls to"
        at = f", at step {when}" if len(judged) > 1 else ""
        title = f"{judged.label.capitalize()} {in_sentence(name)} {reached} {most}{at}"
    events = record.evaluations.get("train", ())
    few = len(events) - len(_telling(events))
    note = "Not drawn: the training's last value, over very few rows." if few else ""
    rate = measure(values(record.final, "model").get("click_rate"))
    if name == "accuracy" and math.isfinite(rate):
        # Said, not drawn: it is often so far below that the curves would be flat beside it
        commoner = percent(max(rate, 1 - rate))
        note = f"Always saying the commoner label would be right for {commoner}. {note}".rstrip()
    chart, levels = f"{name}-{record.place}", _levels(record, name)
    return curves(chart, title, lines, UNITS[name], levels, _ring(record, name), note)


def throughput(record: Record) -> Figure:
    """Draw the samples a second over time."""
    timed = [event for event in record.steps if math.isfinite(measure(event.get("elapsed_s")))]
    times = elapsed([measure(event["elapsed_s"]) for event in timed])
    unit, size = next(
        (unit, size)
        for unit, size in {"hours": 3600.0, "minutes": 60.0, "seconds": 1.0}.items()
        if max(times, default=0.0) >= 3 * size or size == 1.0
    )
    speed, waiting = (
        line(
            label,
            role,
            [(at / size, measure(e.get(key))) for at, e in zip(times, timed, strict=True)],
        )
        for label, role, key in (
            ("samples per second", "model", "samples_per_s"),
            ("share of time waiting for data", "train", "loading_share"),
        )
    )
    if not len(speed):
        return Figure("Throughput", "no step was logged yet")
    title = f"Throughput: {compact(round(float(np.median(speed.y))))} samples a second (median)"
    with drawing("throughput", title, rows=2 if len(waiting) else 1) as (figure, ax, *others):
        scale(ax, Window(0.0, float(speed.y.max()) * 1.12 or 1.0), [speed])
        draw_line(ax, speed)
        labels(ax, "", "samples per second")
        for below in others:
            scale(below, Window(0.0, max(float(waiting.y.max()) * 1.25, 0.01)), [speed])
            below.fill_between(waiting.x, waiting.y, color=COLOR["train"], alpha=0.35, lw=0)
            draw_line(below, waiting)
            ticks(below.yaxis, most=2)
            shares(below.yaxis)
            labels(below, "", "time spent waiting for data")
        [ax, *others][-1].set_xlabel(f"time ({unit})", loc="right")
    figure.note = f"{duration(times[-1])} of training. {line_note([speed, waiting])}"
    figure.legend = line_keys([line for line in (speed, waiting) if len(line)])
    return figure


def _members(record: Record) -> list[Figure]:
    """Draw the loss and the choosing metric of each member over its steps."""

    def member_line(events: Iterable[Event], name: str, role: str) -> Line:
        return line("each member", role, _points(events, name))

    losses = [member_line(member.steps, "loss", "train") for member in record.members]
    record = record.by_label[0]
    name = (record.config.get("eval") or {}).get("metric", "auto")
    chosen = SELECTING[record.task][0] if name == "auto" else name
    member_curves = [
        member_line(member.evaluations.get("validation", ()), chosen, "model")
        for member in record.members
    ]
    mean = measure(values(record.finals.get("validation", {}), "model").get(chosen))
    end = max((float(curve.x[-1]) for curve in member_curves if len(curve)), default=0.0)
    whole = line(f"{record.name}, of the best of each", "test", [(end, mean)])
    title = f"Validation {in_sentence(chosen)} of the members"
    if len(whole):
        member_curves.append(whole)
        title += f"; their mean reaches {number(mean)}"
    return [
        curves("loss", "Training loss of the members", losses, "loss per sample"),
        curves(chosen, title, member_curves, METRICS[chosen]),
    ]


def _loss_name(record: Record) -> str:
    """Return the name of the loss."""
    loss = record.config.get("loss", "auto")
    name = loss.get("name", "auto") if isinstance(loss, dict) else loss
    return name if name != "auto" else "mse" if record.task == "regression" else "bce"


def _points(events: Iterable[Event], key: str) -> list[tuple[float, float]]:
    known = [event for event in events if event.get(key) is not None]
    return [(measure(event.get("step")), measure(event[key])) for event in known]


def _splits(record: Record, name: str) -> list[Line]:
    """Return a metric over the steps of each split, that of the final test as a point."""
    labels = {"train": ("training, as it went", "train"), "validation": ("validation", "model")}
    lines = [
        line(label, role, _points(_telling(record.evaluations.get(split, ())), name))
        for split, (label, role) in labels.items()
    ]
    # A run may be evaluated on its test rows all along, or only at the end
    tests = dict(_points(record.evaluations.get("test", ()), name))
    if "test" in record.finals:
        tests.pop(record.final_step, None)
        last = values(record.finals["test"], "model") | {"step": record.final_step}
        tests |= dict(_points([last], name))
    role = "test" if len(lines[1]) else "model"
    return [*lines, line("test", role, sorted(tests.items()))]


def _telling(events: Sequence[Event]) -> list[Event]:
    """Return the evaluations without those over so few rows that they are mostly luck.

    The rows of a training since its last evaluation are few when it ends just after one.
    """
    rows = [measure(event.get("samples"), math.inf) for event in events]
    enough = 0.1 * float(np.median(rows)) if rows and math.isfinite(max(rows)) else 0.0
    return [event for event, count in zip(events, rows, strict=True) if count >= enough]


def _levels(record: Record, name: str) -> list[Level]:
    levels = []
    for role, label in (("optimum", "best possible"), ("baseline", baseline_name(record))):
        value = measure(values(record.final, role).get(name))
        if math.isfinite(value):
            levels.append(Level(f"{label} {number(value)}", role, value))
    return levels


def _ring(record: Record, name: str) -> tuple[float, float] | None:
    """Return the best point, where this is the metric that the run chose it by."""
    # Of several labels their mean is what chooses, and is no point of either
    if record.best.get("metric") != name or record.place:
        return None
    point = measure(record.best.get("step")), measure(record.best.get("value"))
    return point if all(map(math.isfinite, point)) else None
