"""The top of a report: what was run, what came out, and what one has to know about it."""

import math
from datetime import datetime

from dlrm.reporting.markup import Html, bar, element
from dlrm.reporting.record import Record, measure
from dlrm.reporting.verdict import Gap, baseline_name, gap, values, verdict
from dlrm.reporting.words import METRICS, duration, in_sentence, interval, metric, number

HEADLINES = {
    "classification": ("auc", "log_loss", "normalized_entropy", "accuracy", "calibration"),
    "regression": ("rmse", "mae", "r2", "bias"),
}
"""By task, the metrics that stand at the top, the most telling ones first."""


def head(record: Record) -> Html:
    """Return the title, the verdict, where the model stands, and the headline numbers."""
    about = (
        record.name if record.size > 1 else None,
        _date(record.environment.get("started")),
        record.environment.get("cpu"),
    )
    facts = " · ".join(str(one) for one in about if one)
    between = gap(record.final, record.headline) if len(record.labels) == 1 else None
    # Where the model is outside by far the labels would meet; the verdict says it in words
    shown = between is not None and 0 <= between.closed <= 1.5
    return element(
        "header",
        bar("dlrm run report"),
        element("h1", record.recipe),
        element("p", facts, class_="made") if facts else None,
        element("p", verdict(record), class_="verdict"),
        _gauge(between, record) if between and shown else None,
        _tiles(record),
        _notices(record),
    )


def _date(started: object) -> str:
    """Return an ISO time as people write it; other text as it is."""
    try:
        when = datetime.fromisoformat(str(started))
    except ValueError:
        return str(started or "")
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".rstrip()


def _gauge(between: Gap, record: Record) -> Html:
    """Draw where the model stands between the baseline and the best possible."""
    name = baseline_name(record)
    # From the worse end to the better one, whichever is the larger number.
    low, high = between.baseline, between.optimum
    if between.closed < 0:
        low = between.model
    if between.closed > 1:
        high = between.model
    ends = {"baseline": between.baseline, "model": between.model, "optimum": between.optimum}
    at = {role: 100 * (value - low) / (high - low) for role, value in ends.items()}
    words = {"baseline": name, "model": "this model", "optimum": "best possible"}
    marks = [element("i", class_=f"mark {role}", style=f"--at: {at[role]:.1f}%") for role in at]
    labels = [
        element(
            "span",
            f"{words[role]} ",
            element("b", number(ends[role])),
            class_=f"end {role}",
            style=f"--at: {at[role]:.1f}%",
        )
        for role in at
    ]
    text = ", ".join(f"{words[role]} {number(ends[role])}" for role in at)
    fill = element(
        "i",
        class_="fill",
        style=f"left: {min(at['baseline'], at['model']):.1f}%;"
        f" right: {100 - max(at['baseline'], at['model']):.1f}%",
    )
    track = element("div", fill, *marks, class_="track")
    return element(
        "div",
        *labels,
        track,
        class_="gauge",
        role="img",
        aria_label=f"{METRICS[record.headline]}: {text}",
    )


def _tiles(record: Record) -> Html | None:
    """Return the headline numbers."""
    tiles = [tile for one in record.by_label for tile in _measured(one)]
    if math.isfinite(record.samples):
        tiles.append(("samples seen", number(record.samples, 0), ""))
    if math.isfinite(record.elapsed_s):
        tiles.append(("training time", duration(record.elapsed_s), ""))
    if not tiles:
        return None
    # An empty line below the others, so that all values stand in one.
    below = "\u00a0" if any(between for *_, between in tiles) else ""
    return element(
        "dl",
        *(
            element(
                "div",
                element("dt", name),
                element("dd", value, element("small", between or below) if below else None),
            )
            for name, value, between in tiles
        ),
        class_="tiles",
    )


def _measured(record: Record) -> list[tuple[str, str, str]]:
    """Return name, value and interval of the metrics that stand at the top, of one label."""
    source, split = values(record.final, "model"), record.split
    if not source and record.latest is not None:
        source, split = record.latest, str(record.latest.get("split"))
    shown: tuple[str, ...] = HEADLINES[record.task]
    prefix = ""
    if record.place:
        # Of several labels only the first words of each.
        shown, prefix = shown[:2], f"{record.labels[0]}: "
    return [
        (f"{prefix}{split} {in_sentence(key)}", metric(key, source[key]), interval(source, key))
        for key in shown
        if key in source
    ]


def _notices(record: Record) -> Html | None:
    """Say what is missing, and what happened on the way."""
    notices = list(record.missing)
    if record.resumes:
        at = ", ".join(number(step) for step in record.resumes)
        notices.append(f"The run was resumed at step {at}; what was computed twice counts once.")
    if record.stopped is not None:
        patience = record.stopped.get("patience")
        why = (
            "" if patience is None else f", after {number(patience)} evaluations without a new best"
        )
        notices.append(f"The run stopped early, at step {number(record.stopped.get('step'))}{why}.")
    bad = measure(record.dataset.get("bad_rows"), 0)
    if bad > 0:
        notices.append(f"{number(int(bad))} bad rows of the raw log were skipped.")
    if not notices:
        return None
    return element("ul", *(element("li", text) for text in notices), class_="notices", role="note")
