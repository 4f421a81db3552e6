"""The figures of a report: what is drawn from a record, under which title and with which legend."""

import math
from collections.abc import Sequence

import numpy as np

from dlrm.reporting import charts
from dlrm.reporting.markup import Html, element, join
from dlrm.reporting.record import Event, Record, measure
from dlrm.reporting.series import Level, Line, elapsed, line, window
from dlrm.reporting.words import (
    baseline_name,
    compact,
    duration,
    metric,
    number,
    percent,
    values,
)

SWATCHES = {"optimum": "5 2.5", "baseline": "1.5 2", "train-dashed": "4 1.5"}
"""How the lines of a legend are dashed, as the charts do."""


def loss(record: Record) -> Html:
    """Draw the loss over the steps."""
    kind = _loss_name(record)
    log_loss = kind in (None, "bce")
    steps = line("training, as it went", "train", _points(record.steps, "loss"))
    lines, levels = [steps], []
    if log_loss:
        lines += _splits(record, "log_loss", "train")
        levels = _levels(record, "log_loss")
    title = "Loss"
    if len(steps) > 1:
        # The loss of one batch is mostly noise; the last tenth tells where it is
        end = float(steps.y[-max(1, len(steps) // 10) :].mean())
        title = f"Training loss goes from {number(float(steps.y[0]))} to {number(end)}"
    unit = "log loss per sample (nats)" if log_loss else f"{kind} per sample"
    return _curves("loss", title, lines, levels, unit, _ring(record, "log_loss"))


def evaluation(record: Record, name: str) -> Html:
    """Draw `auc` or `accuracy` over the steps."""
    shown = {"auc": "AUC", "accuracy": "Accuracy"}[name]
    lines = _splits(record, name)
    if record.split is None and record.latest is None:
        return _absent(shown, "nothing was evaluated yet")
    if not any(len(line) for line in lines):
        return _absent(shown, "it is undefined where a split holds one class only")
    levels = _levels(record, name)
    title, held = shown, [line for line in lines if line.role == "model" and len(line)]
    if held:
        judged, top = held[0], int(np.argmax(held[0].y))
        most, when = number(float(judged.y[top])), number(int(judged.x[top]))
        word = shown if name == "auc" else name
        title = f"{judged.label.capitalize()} {word} is {most}"
        if len(judged) > 1:
            title = f"{judged.label.capitalize()} {word} peaks at {most}, at step {when}"
    unit = "share of rows that are right" if name == "accuracy" else "AUC"
    said = ""
    rate = measure(values(record.final, "model").get("click_rate"))
    if name == "accuracy" and math.isfinite(rate):
        # Said, not drawn: it is often so far below that the curves would be flat beside it
        said = (
            f"Always saying the commoner label would be right for {percent(max(rate, 1 - rate))}."
        )
    return _curves(name, title, lines, levels, unit, _ring(record, name), said)


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
        return _absent("Throughput", "no step was logged yet")
    title = f"Throughput: {compact(round(float(np.median(speed.y))))} samples a second (median)"
    note = _note([speed]) if not len(waiting) else _note([speed, waiting])
    if times:
        note = f"{duration(times[-1])} of training. {note}"
    drawing = charts.throughput("throughput", title, speed, waiting, x_label=f"time ({unit})")
    legend = [_key(speed.label, "model")]
    if len(waiting):
        legend.append(_key(waiting.label, "train"))
    return _figure(title, legend, drawing, note)


def calibration(record: Record) -> Html:
    """Draw click rate against score."""
    rows = [
        row
        for row in record.final.get("calibration_bins") or ()
        if measure(row.get("samples")) > 0
        and all(math.isfinite(measure(row.get(key))) for key in _BIN)
    ]
    if not rows:
        return _absent("Calibration", "it needs the final evaluation")
    low, high, scores, rates, samples = np.asarray(
        [[measure(row[key]) for key in (*_BIN, "samples")] for row in rows]
    ).T
    ratio = measure(values(record.final, "model").get("calibration"))
    title = "Calibration"
    if math.isfinite(ratio):
        title += f": scores are on the whole {_off(ratio)}"
    drawing = charts.calibration(
        "calibration", title, np.stack([low, high], axis=1), scores, rates, samples
    )
    legend = [_key(f"{record.split} rows, by score", "model"), _key("exactly right", "optimum")]
    note = f"{compact(float(samples.sum()))} rows in {len(rows)} bins."
    return _figure(title, legend, drawing, note)


_BIN = ("low", "high", "mean_score", "click_rate")


def histogram(record: Record) -> Html:
    """Draw the scores of either label."""
    counts = record.final.get("histogram") or {}
    edges, negatives, positives = (
        np.asarray([measure(value) for value in counts.get(key) or ()])
        for key in ("edges", "negatives", "positives")
    )
    whole = len(edges) == len(negatives) + 1 == len(positives) + 1
    if not whole or not np.isfinite(np.concatenate([edges, negatives, positives])).all():
        return _absent("Scores by label", "they need the final evaluation")
    if not (negatives + positives).any():
        return _absent("Scores by label", "no row was scored")
    title = "Scores by label"
    if negatives.any() and positives.any():
        middle = (edges[:-1] + edges[1:]) / 2
        yes, no = (float((middle * of).sum() / of.sum()) for of in (positives, negatives))
        title += f": {percent(yes)} on average with a click, {percent(no)} without"
    drawing = charts.histogram("histogram", title, edges, negatives, positives)
    legend = [
        _key(f"no click ({compact(float(negatives.sum()))} rows)", "model"),
        _key(f"click ({compact(float(positives.sum()))} rows)", "train", SWATCHES["train-dashed"]),
    ]
    return _figure(title, legend, drawing, "The bars of each label add up to 100%.")


def _off(ratio: float) -> str:
    if abs(ratio - 1) < 0.005:
        return "right"
    return f"{percent(abs(ratio - 1))} too {'high' if ratio > 1 else 'low'}"


def _loss_name(record: Record) -> str | None:
    """Return the name of the loss, wherever the configuration holds it."""
    for holder in (record.config, *record.config.values()):
        found = holder.get("loss") if isinstance(holder, dict) else None
        if isinstance(found, dict):
            found = found.get("name")
        if isinstance(found, str):
            return found
    return None


def _points(events: Sequence[Event], key: str) -> list[tuple[float, float]]:
    known = [event for event in events if event.get(key) is not None]
    return [(measure(event.get("step")), measure(event[key])) for event in known]


def _splits(record: Record, name: str, *without: str) -> list[Line]:
    """Return a metric over the steps for each split that has it, the final test as a point."""
    labels = {"train": ("training, as it went", "train"), "validation": ("validation", "model")}
    lines = [
        line(label, role, _points(record.evaluations.get(split, ()), name))
        for split, (label, role) in labels.items()
        if split not in without
    ]
    # A run may be evaluated on its test rows all along, or only at the end
    tests = _points(record.evaluations.get("test", ()), name)
    if "test" in record.finals:
        final = record.finals["test"]
        at = measure(final.get("step"), record.last_step)
        tests = [point for point in tests if point[0] != at]
        tests.append((at, measure(values(final, "model").get(name))))
    role = "test" if any(len(line) for line in lines if line.role == "model") else "model"
    lines.append(line("test", role, sorted(tests)))
    return lines


def _levels(record: Record, name: str) -> list[Level]:
    named = (("optimum", "best possible"), ("baseline", baseline_name(record.final)))
    known = [(role, label, measure(values(record.final, role).get(name))) for role, label in named]
    return [
        Level(f"{label} {metric(name, value)}", role, value)
        for role, label, value in known
        if math.isfinite(value)
    ]


def _ring(record: Record, name: str) -> tuple[float, float] | None:
    """Return the best point, where this is the metric that the run chose it by."""
    best = record.best or {}
    if best.get("metric") != name:
        return None
    point = measure(best.get("step")), measure(best.get("value"))
    return point if all(math.isfinite(value) for value in point) else None


def _curves(
    name: str,
    title: str,
    lines: Sequence[Line],
    levels: Sequence[Level],
    unit: str,
    ring: tuple[float, float] | None,
    said: str = "",
) -> Html:
    drawn = [line for line in lines if len(line)]
    if not drawn:
        return _absent(title, "no step with a finite value was logged yet")
    drawing = charts.curves(name, title, drawn, levels, y_label=unit, mark=ring)
    legend = [_key(line.label, line.role) for line in drawn]
    legend += [_key(level.label, level.role, SWATCHES[level.role]) for level in levels]
    best = f"The ring is the best checkpoint, step {number(int(ring[0]))}." if ring else ""
    note = " ".join(filter(None, (said, best, _note(lines, window(drawn, levels).hidden))))
    return _figure(title, legend, drawing, note)


def _note(lines: Sequence[Line], hidden: int = 0) -> str:
    """Say what a reader could not see from the drawing alone."""
    said = []
    groups = max((line.group for line in lines), default=1)
    if groups > 1:
        said.append(f"Each point is the mean of {groups} measurements; the band holds them all.")
    if hidden:
        said.append(
            f"{compact(hidden)} early point{'s are' if hidden > 1 else ' is'} outside of the frame."
        )
    dropped = sum(line.dropped for line in lines)
    if dropped:
        one = dropped == 1
        said.append(
            f"{compact(dropped)} measurement{' is' if one else 's are'} not finite"
            f" and {'is' if one else 'are'} not drawn."
        )
    return " ".join(said)


def _key(label: str, role: str, dashes: str | None = None) -> Html:
    """Return an entry of a legend."""
    dashes = dashes or SWATCHES.get(role)
    stroke = f' stroke-dasharray="{dashes}"' if dashes else ""
    mark = (
        '<path d="M12 1l4 4-4 4-4-4z"/>'
        if role == "test"
        else f'<path d="M1 5h22" stroke="currentColor" stroke-width="2"{stroke}/>'
    )
    drawing = Html(f'<svg viewBox="0 0 24 10" aria-hidden="true" fill="currentColor">{mark}</svg>')
    swatch = element("span", drawing, class_="swatch", style=f"color: var(--{role})")
    return element("li", swatch, label)


def _figure(title: str, legend: Sequence[Html], drawing: str, note: str) -> Html:
    keys = element("ul", *legend, class_="legend") if legend else None
    below = element("p", note, class_="note") if note else None
    body = element("div", Html(drawing), class_="drawing")
    return element("figure", element("figcaption", element("h3", title), keys), body, below)


def _absent(title: str, why: str) -> Html:
    return element(
        "figure",
        element("figcaption", element("h3", title)),
        element("p", f"Not drawn: {why}.", class_="absent"),
    )


def training(record: Record) -> Html:
    """Return the figures about the training."""
    return join(
        loss(record), evaluation(record, "auc"), evaluation(record, "accuracy"), throughput(record)
    )


def scores(record: Record) -> Html:
    """Return the figures about the scores."""
    return join(calibration(record), histogram(record))
