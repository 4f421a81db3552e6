"""The figures of a run's report: its training, its members, its predictions, its columns."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from dlrm.reporting import charts
from dlrm.reporting.charts import Row
from dlrm.reporting.page import Figure, Key, level_keys, line_keys, line_note
from dlrm.reporting.record import Event, Record
from dlrm.reporting.series import Floats, Level, Line, elapsed, line, window
from dlrm.reporting.verdict import DIRECTIONS, baseline_name, values
from dlrm.reporting.words import (
    METRICS,
    compact,
    duration,
    in_sentence,
    measure,
    metric,
    number,
    percent,
)

OVER_STEPS = {"classification": ("auc", "accuracy"), "regression": ("rmse", "mae")}
"""By task, the metrics that are drawn over the steps."""
UNITS = {
    "auc": "AUC",
    "accuracy": "share of rows that are right",
    "log_loss": "log loss per sample (nats)",
    "rmse": "RMSE, in units of the label",
    "mae": "MAE, in units of the label",
}
COLUMNS = 20
"""Columns that are drawn by how much they matter."""
RIGHT = Key("exactly right", "optimum", dashes="5 2.5")


def training(record: Record) -> list[Figure]:
    """Return the figures about the training, or about those of an ensemble's members.

    Metrics of several labels are drawn with each of them, by `over_steps`.
    """
    if record.members:
        return _members(record)
    names = OVER_STEPS[record.task] if len(record.labels) == 1 else ()
    return [*_loss(record), *(_metric(record, name) for name in names), _throughput(record)]


def over_steps(record: Record) -> list[Figure]:
    """Return the figures about one of several labels over the steps."""
    if record.members:
        return []
    names = ("log_loss", "auc") if record.task == "classification" else OVER_STEPS[record.task]
    return [_metric(record, name) for name in names]


def scores(record: Record) -> list[Figure]:
    """Return the figures about the predictions of one label."""
    numbers = record.task == "regression"
    drawn = (_predicted, _residuals, _columns) if numbers else (_calibration, _histogram, _columns)
    return [figure for draw in drawn if (figure := draw(record)) is not None]


def _loss(record: Record) -> list[Figure]:
    """Draw the loss over the steps; beside it the log loss, where training minimises another."""
    kind, title = _loss_name(record), "Training loss"
    steps = line("training, as it went", "train", _points(record.steps, "loss"))
    of_splits, of_clicks = _splits(record, "log_loss"), record.task == "classification"
    alone = len(record.labels) == 1
    if kind == "bce" and alone and len(steps) < 3:
        # A short training logs its loss rarely, but is measured all along
        steps = max(steps, of_splits[0], key=len)
    if len(steps) > 1:
        # The loss of one batch is mostly noise; the last tenth tells where it is
        end = float(steps.y[-max(1, len(steps) // 10) :].mean())
        title = f"Training loss goes from {number(float(steps.y[0]))} to {number(end)}"
    around: dict[str, Any] = {
        "levels": _levels(record, "log_loss"),
        "ring": _ring(record, "log_loss"),
    }
    if kind == "bce" and alone and of_clicks:
        return [_curves("loss", title, [steps, *of_splits[1:]], UNITS["log_loss"], **around)]
    unit = f"{kind} per sample" if alone else f"{kind}, mean of the labels"
    figures = [_curves("loss", title, [steps], unit)]
    if alone and of_clicks:
        figures.append(_curves("log-loss", "Log loss", of_splits, UNITS["log_loss"], **around))
    return figures  # fmt: skip


def _metric(record: Record, name: str) -> Figure:
    """Draw a metric over the steps."""
    title, lines = METRICS[name], _splits(record, name)
    if record.split is None and record.latest is None:
        return Figure(title, "", "nothing was evaluated yet")
    if not any(map(len, lines)):
        return Figure(title, "", "it is undefined where a split holds one class only")
    if held := [line for line in lines if line.role == "model" and len(line)]:
        judged, upwards = held[0], DIRECTIONS[name] > 0
        top = int(np.argmax(judged.y) if upwards else np.argmin(judged.y))
        most, when = number(float(judged.y[top])), number(int(judged.x[top]))
        reached = "is" if len(judged) == 1 else "peaks at" if upwards else "falls to"
        at = f", at step {when}" if len(judged) > 1 else ""
        title = f"{judged.label.capitalize()} {in_sentence(name)} {reached} {most}{at}"
    seen = record.evaluations.get("train", ())
    few = len(seen) - len(_telling(seen))
    note = "Not drawn: the training's last value, over very few rows." if few else ""
    rate = measure(values(record.final, "model").get("click_rate"))
    if name == "accuracy" and math.isfinite(rate):
        # Said, not drawn: it is often so far below that the curves would be flat beside it
        commoner = percent(max(rate, 1 - rate))
        note = f"Always saying the commoner label would be right for {commoner}. {note}".rstrip()
    levels, ring = _levels(record, name), _ring(record, name)
    return _curves(_named(record, name), title, lines, UNITS[name], levels, ring, note)


def _throughput(record: Record) -> Figure:
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
        return Figure("Throughput", "", "no step was logged yet")
    return Figure(
        f"Throughput: {compact(round(float(np.median(speed.y))))} samples a second (median)",
        charts.throughput("throughput", speed, waiting, x_label=f"time ({unit})"),
        f"{duration(times[-1])} of training. {line_note([speed, waiting])}",
        line_keys([line for line in (speed, waiting) if len(line)]),
    )


def _members(record: Record) -> list[Figure]:
    """Draw the loss and the choosing metric of each member over its steps."""

    def each(events: Iterable[Event], name: str, role: str) -> Line:
        return line("each member", role, _points(events, name))

    losses = [each(member.steps, "loss", "train") for member in record.members]
    record = record.by_label[0]
    held = record.config.get("eval")
    name = held.get("metric") if isinstance(held, dict) else None
    chosen = record.headline if name in (None, "auto") else str(name)
    seen = [
        each(member.evaluations.get("validation", ()), chosen, "model") for member in record.members
    ]
    mean = measure(values(record.finals.get("validation", {}), "model").get(chosen))
    end = max((float(curve.x[-1]) for curve in seen if len(curve)), default=0.0)
    whole = line(f"{record.name}, of the best of each", "test", [(end, mean)])
    title = f"Validation {in_sentence(chosen)} of the members"
    if len(whole):
        title += f"; their mean reaches {metric(chosen, mean)}"
    return [
        _curves("loss", "Training loss of the members", losses, "loss per sample"),
        _curves(chosen, title, [*seen, whole], METRICS.get(chosen, chosen)),
    ]  # fmt: skip


def _curves(
    name: str,
    title: str,
    lines: Sequence[Line],
    unit: str,
    levels: Sequence[Level] = (),
    ring: tuple[float, float] | None = None,
    note: str = "",
) -> Figure:
    drawn = [line for line in lines if len(line)]
    if not drawn:
        return Figure(title, "", "no step with a finite value was logged yet")
    drawing = charts.curves(name, drawn, levels, y_label=unit, mark=ring)
    best = f"The ring is the best checkpoint, step {number(int(ring[0]))}." if ring else ""
    notes = (note, best, line_note(lines, window(drawn, levels).hidden))
    keys = [*line_keys(drawn), *level_keys(levels)]
    return Figure(title, drawing, " ".join(filter(None, notes)), keys)


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
    tests = _points(record.evaluations.get("test", ()), name)
    if "test" in record.finals:
        at = record.final_step
        last = _points([values(record.finals["test"], "model") | {"step": at}], name)
        tests = [point for point in tests if point[0] != at] + last
    return [*lines, line("test", "test" if len(lines[1]) else "model", sorted(tests))]


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
    # Of several labels their mean is what chooses, and is no point of either
    if best.get("metric") != name or record.place:
        return None
    point = measure(best.get("step")), measure(best.get("value"))
    return point if all(map(math.isfinite, point)) else None


def _named(record: Record, name: str) -> str:
    """Return the name of a drawing, its own within the page."""
    return f"{name}-{record.place}" if record.place else name


def _bins(record: Record, name: str, keys: Sequence[str]) -> Floats | None:
    """Return (keys, bins) numbers of the bins of a final evaluation; None where there are none."""
    rows = [[measure(row.get(key)) for key in keys] for row in record.final.get(name) or ()]
    known = [row for row in rows if all(map(math.isfinite, row)) and row[-1] > 0]
    return np.asarray(known).T if known else None


def _counts(record: Record, name: str, keys: Sequence[str]) -> list[Floats] | None:
    """Return edges and counts of a histogram; None where they are not whole."""
    held = record.final.get(name) or {}
    found = [np.asarray([measure(value) for value in held.get(key) or ()]) for key in keys]
    whole = all(len(found[0]) == len(counts) + 1 for counts in found[1:])
    return found if whole and np.isfinite(np.concatenate(found)).all() else None


def _calibration(record: Record) -> Figure:
    """Draw positive rate against score."""
    title = "Calibration"
    keys = ("low", "high", "mean_score", "click_rate", "samples")
    if (bins := _bins(record, "calibration_bins", keys)) is None:
        return Figure(title, "", "it needs the final evaluation")
    low, high, means, rates, samples = bins
    ratio = measure(values(record.final, "model").get("calibration"))
    if math.isfinite(ratio):
        off = f"{percent(abs(ratio - 1))} too {'high' if ratio > 1 else 'low'}"
        title += f": scores are on the whole {'right' if abs(ratio - 1) < 0.005 else off}"
    ends, name = np.stack([low, high], axis=1), _named(record, "calibration")
    least, most = compact(float(samples.min())), compact(float(samples.max()))
    size = f"{least} rows" if least == most else f"{least} to {most} rows"
    return Figure(
        title,
        charts.calibration(name, ends, means, rates, samples),
        f"{compact(float(samples.sum()))} rows in {len(samples)} bins of {size}.",
        [Key(f"{record.split} rows, by score", "model", "dot"), RIGHT],
    )


def _histogram(record: Record) -> Figure:
    """Draw the scores of either label."""
    title = "Scores by label"
    held = _counts(record, "histogram", ("edges", "negatives", "positives"))
    if held is None:
        return Figure(title, "", "they need the final evaluation")
    edges, negatives, positives = held
    if not (negatives + positives).any():
        return Figure(title, "", "no row was scored")
    if negatives.any() and positives.any():
        middle = (edges[:-1] + edges[1:]) / 2
        yes, no = (float((middle * n).sum() / n.sum()) for n in (positives, negatives))
        title += f": {percent(yes)} on average where positive, {percent(no)} where not"
    many = [compact(float(counted.sum())) for counted in (negatives, positives)]
    return Figure(
        title,
        charts.histogram(_named(record, "histogram"), edges, negatives, positives),
        "The bars of each label add up to 100%.",
        [
            Key(f"negative ({many[0]} rows)", "model"),
            Key(f"positive ({many[1]} rows)", "train", dashes="4 1.5"),
        ],
    )


def _predicted(record: Record) -> Figure:
    """Draw actual values against predicted ones."""
    title = "Predicted against actual"
    keys = ("mean_prediction", "mean_label", "label_low", "label_high", "samples")
    if (bins := _bins(record, "prediction_bins", keys)) is None:
        return Figure(title, "", "it needs the final evaluation")
    *drawn, samples = bins
    r2 = measure(values(record.final, "model").get("r2"))
    if math.isfinite(r2) and r2 > 0:
        title += f": {percent(r2)} of the variance is predicted"
    return Figure(
        title,
        charts.predicted(_named(record, "predicted"), *drawn),
        f"{compact(float(samples.sum()))} rows in {len(samples)} bins; the lines hold the middle "
        "80% of the actual values of each.",
        [Key(f"mean of {record.split} rows, by prediction", "model", "dot"), RIGHT],
    )


def _residuals(record: Record) -> Figure:
    """Draw how far predictions are off."""
    held = _counts(record, "residuals", ("edges", "counts"))
    if held is None:
        return Figure("Residuals", "", "they need the final evaluation")
    edges, rows = held
    if not rows.any():
        return Figure("Residuals", "", "no row was predicted")
    note = f"{compact(float(rows.sum()))} rows."
    outside = measure(record.final["residuals"].get("outside"), 0.0)
    if outside > 0:
        note += f" {compact(outside)} more are further off and outside of the frame."
    drawing = charts.residuals(_named(record, "residuals"), edges, rows)
    legend = [Key(f"{record.split} rows", "model"), RIGHT]
    return Figure("Residuals: predicted less actual", drawing, note, legend)


def _columns(record: Record) -> Figure | None:
    """Draw how much worse a metric is without each column; None where nobody measured it."""
    if not record.importance:
        return None
    title = "Which columns matter"
    columns = [column for column in record.importance.get("columns") or () if column.get("column")]

    def of(column: Event, name: str) -> tuple[float, ...]:
        return tuple(measure(column.get(key)) for key in (name, f"{name}_low", f"{name}_high"))

    for name in ("auc", "log_loss", "rmse"):
        rows = [Row(str(column["column"]), of(column, name)) for column in columns]
        rows = [row for row in rows if all(map(math.isfinite, row.values))]
        if rows:
            break
    else:
        return Figure(title, "", "no change of a metric was measured")
    shown, many = in_sentence(name), compact(measure(record.importance.get("rows"), 0.0))
    note = (
        f"How much worse the {shown} is where the values of a column are exchanged among {many} "
        f"{record.importance.get('split', '')} rows. Columns that say the same stand in for each "
        "other."
    )
    if len(rows) > COLUMNS:
        note += f" {len(rows) - COLUMNS} columns that matter less are not drawn."
    drawing = charts.changes(_named(record, "columns"), rows[:COLUMNS], x_label=f"{shown} worse by")
    return Figure(title, drawing, note, [Key("with its 95% interval", "model", "dot")])
