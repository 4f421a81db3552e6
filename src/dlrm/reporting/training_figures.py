"""The figures about a training: loss, metrics of the held-out rows and throughput."""

import math
from collections.abc import Sequence

import numpy as np

from dlrm.reporting import charts, members
from dlrm.reporting.figures import SWATCHES, absent, figure, key, note
from dlrm.reporting.markup import Html, join
from dlrm.reporting.record import Event, Record, measure
from dlrm.reporting.series import Level, Line, elapsed, line, window
from dlrm.reporting.verdict import DIRECTIONS, baseline_name, values
from dlrm.reporting.words import METRICS, compact, duration, in_sentence, metric, number, percent

FIGURES = {"classification": ("auc", "accuracy"), "regression": ("rmse", "mae")}
"""By task, the metrics that are drawn over the steps."""
UNITS = {
    "auc": "AUC",
    "accuracy": "share of rows that are right",
    "log_loss": "log loss per sample (nats)",
    "rmse": "RMSE, in units of the label",
    "mae": "MAE, in units of the label",
}


def section(record: Record) -> Html:
    """Return the figures about the training, or about those of an ensemble's members.

    Metrics of several labels are drawn with each of them, by `of_label`.
    """
    if record.members:
        return members.figures(record)
    one = record.labels if len(record.labels) == 1 else ()
    drawn = [evaluation(record, name) for name in FIGURES[record.task] if one]
    return join(loss(record), *drawn, throughput(record))


def of_label(record: Record) -> Html:
    """Return the figures about one of several labels over the steps."""
    if record.members:
        return Html("")
    names = ("log_loss", "auc") if record.task == "classification" else FIGURES[record.task]
    return join(*(evaluation(record, name) for name in names))


def loss(record: Record) -> Html:
    """Draw the loss over the steps; beside it the log loss, where training minimises another."""
    kind = _loss_name(record)
    steps = line("training, as it went", "train", _points(record.steps, "loss"))
    alone = len(record.labels) == 1
    if kind == "bce" and alone and len(steps) < 3:
        # A short training logs its loss rarely, but is measured all along
        steps = max(steps, *_splits(record, "log_loss")[:1], key=len)
    title = "Training loss"
    if len(steps) > 1:
        # The loss of one batch is mostly noise; the last tenth tells where it is
        end = float(steps.y[-max(1, len(steps) // 10) :].mean())
        title = f"Training loss goes from {number(float(steps.y[0]))} to {number(end)}"
    if not alone:
        return _curves("loss", title, [steps], [], f"{kind}, mean of the labels", None)
    if record.task == "regression":
        return _curves("loss", title, [steps], [], f"{kind} per sample", None)
    ring, levels = _ring(record, "log_loss"), _levels(record, "log_loss")
    if kind == "bce":
        lines = [steps, *_splits(record, "log_loss", "train")]
        return _curves("loss", title, lines, levels, "log loss per sample (nats)", ring)
    lines = _splits(record, "log_loss")
    return join(
        _curves("loss", title, [steps], [], f"{kind} per sample", None),
        _curves("log-loss", "Log loss", lines, levels, "log loss per sample (nats)", ring),
    )


def evaluation(record: Record, name: str) -> Html:
    """Draw a metric over the steps."""
    shown = METRICS[name]
    lines = _splits(record, name)
    if record.split is None and record.latest is None:
        return absent(shown, "nothing was evaluated yet")
    if not any(len(line) for line in lines):
        return absent(shown, "it is undefined where a split holds one class only")
    levels = _levels(record, name)
    title, held = shown, [line for line in lines if line.role == "model" and len(line)]
    if held:
        judged, upwards = held[0], DIRECTIONS[name] > 0
        top = int(np.argmax(judged.y) if upwards else np.argmin(judged.y))
        most, when = number(float(judged.y[top])), number(int(judged.x[top]))
        subject = f"{judged.label.capitalize()} {in_sentence(name)}"
        title = f"{subject} is {most}"
        if len(judged) > 1:
            verb = "peaks at" if upwards else "falls to"
            title = f"{subject} {verb} {most}, at step {when}"
    seen = record.evaluations.get("train", ())
    few = len(seen) - len(_telling(seen))
    text = "Not drawn: the training's last value, over very few rows." if few else ""
    rate = measure(values(record.final, "model").get("click_rate"))
    if name == "accuracy" and math.isfinite(rate):
        # Said, not drawn: it is often so far below that the curves would be flat beside it
        commoner = percent(max(rate, 1 - rate))
        text = f"Always saying the commoner label would be right for {commoner}. {text}".rstrip()
    chart = f"{name}-{record.place}" if record.place else name
    return _curves(chart, title, lines, levels, UNITS[name], _ring(record, name), text)


def throughput(record: Record) -> Html:
    """Draw the samples a second over time."""
    timed = [event for event in record.steps if math.isfinite(measure(event.get("elapsed_s")))]
    times = elapsed([measure(event["elapsed_s"]) for event in timed])
    size, unit = next(
        (size, unit)
        for size, unit in ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
        if max(times, default=0.0) >= 3 * size or size == 1.0
    )

    def over_time(label: str, role: str, key: str) -> Line:
        rows = zip(times, timed, strict=True)
        return line(label, role, [(at / size, measure(event.get(key))) for at, event in rows])

    speed = over_time("samples per second", "model", "samples_per_s")
    waiting = over_time("share of time waiting for data", "train", "loading_share")
    if not len(speed):
        return absent("Throughput", "no step was logged yet")
    title = f"Throughput: {compact(round(float(np.median(speed.y))))} samples a second (median)"
    text = f"{duration(times[-1])} of training. {note([speed, waiting])}"
    drawing = charts.throughput("throughput", title, speed, waiting, x_label=f"time ({unit})")
    legend = [key(speed.label, "model")]
    if len(waiting):
        legend.append(key(waiting.label, "train"))
    return figure(title, legend, drawing, text)


def _curves(
    name: str,
    title: str,
    lines: Sequence[Line],
    levels: Sequence[Level],
    unit: str,
    ring: tuple[float, float] | None,
    text: str = "",
) -> Html:
    drawn = [line for line in lines if len(line)]
    if not drawn:
        return absent(title, "no step with a finite value was logged yet")
    drawing = charts.curves(name.replace("_", "-"), title, drawn, levels, y_label=unit, mark=ring)
    legend = [key(line.label, line.role) for line in drawn]
    legend += [key(level.label, level.role, SWATCHES[level.role]) for level in levels]
    best = f"The ring is the best checkpoint, step {number(int(ring[0]))}." if ring else ""
    below = (text, best, note(lines, window(drawn, levels).hidden))
    return figure(title, legend, drawing, " ".join(filter(None, below)))


def _loss_name(record: Record) -> str:
    """Return the name of the loss, wherever the configuration holds it."""
    usual = "mse" if record.task == "regression" else "bce"
    for holder in (record.config, *record.config.values()):
        loss = holder.get("loss") if isinstance(holder, dict) else None
        if isinstance(loss, dict):
            loss = loss.get("name")
        if isinstance(loss, str):
            return usual if loss == "auto" else loss
    return usual


def _points(events: Sequence[Event], key: str) -> list[tuple[float, float]]:
    known = [event for event in events if event.get(key) is not None]
    return [(measure(event.get("step")), measure(event[key])) for event in known]


def _splits(record: Record, name: str, *without: str) -> list[Line]:
    """Return a metric over the steps for each split that has it, the final test as a point."""
    labels = {"train": ("training, as it went", "train"), "validation": ("validation", "model")}
    lines = [
        line(label, role, _points(_telling(record.evaluations.get(split, ())), name))
        for split, (label, role) in labels.items()
        if split not in without
    ]
    # A run may be evaluated on its test rows all along, or only at the end
    tests = _points(record.evaluations.get("test", ()), name)
    if "test" in record.finals:
        at = record.final_step
        last = _points([values(record.finals["test"], "model") | {"step": at}], name)
        tests = [point for point in tests if point[0] != at] + last
    role = "test" if any(len(line) for line in lines if line.role == "model") else "model"
    lines.append(line("test", role, sorted(tests)))
    return lines


def _telling(events: Sequence[Event]) -> list[Event]:
    """Return the evaluations without those over so few rows that they are mostly luck.

    The rows of a training since its last evaluation are few when it ends just after one.
    """
    rows = [measure(event.get("samples"), math.inf) for event in events]
    enough = 0.1 * float(np.median(rows)) if rows and math.isfinite(max(rows)) else 0.0
    return [event for event, count in zip(events, rows, strict=True) if count >= enough]


def _levels(record: Record, name: str) -> list[Level]:
    named = (("optimum", "best possible"), ("baseline", baseline_name(record)))
    known = [(role, label, measure(values(record.final, role).get(name))) for role, label in named]
    return [
        Level(f"{label} {metric(name, value)}", role, value)
        for role, label, value in known
        if math.isfinite(value)
    ]


def _ring(record: Record, name: str) -> tuple[float, float] | None:
    """Return the best point, where this is the metric that the run chose it by."""
    best = record.best or {}
    # Of several labels their mean is what chooses, and is no point of either.
    if best.get("metric") != name or record.place:
        return None
    point = measure(best.get("step")), measure(best.get("value"))
    return point if all(math.isfinite(value) for value in point) else None
