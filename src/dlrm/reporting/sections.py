"""The parts of a report that are words and tables."""

import math
from datetime import datetime
from typing import Any

from dlrm.reporting.markup import Html, element, join
from dlrm.reporting.record import Record, measure
from dlrm.reporting.words import (
    MEANINGS,
    METRICS,
    UNKNOWN,
    Gap,
    baseline_name,
    commands,
    duration,
    gap,
    metric,
    number,
    percent,
    values,
    verdict,
)
from dlrm.terminal import human_bytes

OPEN_ROWS = 60
"""Features that are shown without being asked for."""


def head(record: Record) -> Html:
    """Return the title, the verdict, where the model stands, and the headline numbers."""
    toggle = element(
        "button", "Light / dark", type="button", id="theme", aria_label="Switch light and dark"
    )
    about = (_date(record.environment.get("started")), record.environment.get("cpu"))
    made = " · ".join(str(one) for one in about if one)
    between = gap(record.final, "auc")
    return element(
        "header",
        element("p", element("span", "dlrm run report", class_="kind"), toggle, class_="bar"),
        element("h1", record.recipe),
        element("p", made, class_="made") if made else None,
        element("p", verdict(record), class_="verdict"),
        _gauge(between, baseline_name(record.final)) if between else None,
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


def _gauge(between: Gap, name: str) -> Html:
    """Draw where the model stands between the baseline and the best possible."""
    low, high = min(between.baseline, between.model), max(between.optimum, between.model)
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
    said = ", ".join(f"{words[role]} {number(ends[role])}" for role in at)
    fill = element(
        "i",
        class_="fill",
        style=f"left: {min(at['baseline'], at['model']):.1f}%;"
        f" right: {100 - max(at['baseline'], at['model']):.1f}%",
    )
    track = element("div", fill, *marks, class_="track")
    return element("div", *labels, track, class_="gauge", role="img", aria_label=f"AUC: {said}")


def _tiles(record: Record) -> Html | None:
    """Return the headline numbers."""
    tiles: list[tuple[str, str]] = []
    source, split = values(record.final, "model"), record.split
    if not source and record.latest is not None:
        source, split = record.latest, str(record.latest.get("split"))
    for key in ("auc", "log_loss", "normalized_entropy", "accuracy", "calibration"):
        if key in source:
            label = METRICS[key] if key == "auc" else METRICS[key].lower()
            tiles.append((f"{split} {label}", metric(key, source[key])))
    if record.steps:
        last = record.steps[-1]
        if last.get("samples") is not None:
            tiles.append(("samples seen", number(last["samples"], 0)))
        if math.isfinite(measure(last.get("elapsed_s"))):
            tiles.append(("training time", duration(measure(last["elapsed_s"]))))
    if not tiles:
        return None
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in tiles),
        class_="tiles",
    )


def _notices(record: Record) -> Html | None:
    """Say what is missing, and what happened on the way."""
    said = list(record.missing)
    if record.resumes:
        at = ", ".join(number(step) for step in record.resumes)
        said.append(f"The run was resumed at step {at}; what was computed twice counts once.")
    if record.stopped is not None:
        why = record.stopped.get("reason")
        at = number(record.stopped.get("step"))
        said.append(f"The run stopped early at step {at}{f': {why}' if why else ''}.")
    bad = measure(record.dataset.get("bad_rows"), 0)
    if bad > 0:
        said.append(f"{number(int(bad))} bad rows of the raw log were skipped.")
    if not said:
        return None
    return element("ul", *(element("li", text) for text in said), class_="notices", role="note")


def comparison(record: Record) -> Html | None:
    """Return the table of the final metrics, the model beside the baseline and the optimum."""
    tables = []
    for split, final in record.finals.items():
        who = [one for one in ("baseline", "model", "optimum") if values(final, one)]
        if "model" not in who:
            continue
        names = {"baseline": baseline_name(final), "model": "model", "optimum": "best possible"}
        gaps = {key: gap(final, key) for key in METRICS}
        heads = ["Metric", *(names[one].capitalize() for one in who)]
        if any(gaps.values()):
            heads.append("Gap closed")
        rows = []
        for key, label in METRICS.items():
            cells: list[Html] = [
                element("td", metric(key, values(final, one).get(key)), class_=f"n {one}")
                for one in who
            ]
            if any(gaps.values()):
                closed = gaps[key]
                cells.append(element("td", percent(closed.closed) if closed else "", class_="n"))
            meaning = element("small", MEANINGS[key])
            rows.append(element("tr", element("th", label, meaning, scope="row"), *cells))
        step = f", at step {number(final['step'])}" if final.get("step") is not None else ""
        tables.append(_table(heads, rows, f"{split.capitalize()} rows{step}"))
    return element("section", element("h2", "Result"), *tables) if tables else None


def data(record: Record) -> Html:
    """Return the splits and the features of the dataset."""
    splits = record.dataset.get("splits") or {}
    rows = []
    for name, counts in splits.items():
        total, clicks = measure(counts.get("rows")), measure(counts.get("clicks"))
        rate = percent(clicks / total) if total > 0 else UNKNOWN
        shown = [number(counts.get("rows"), 0), number(counts.get("clicks"), 0), rate]
        cells = [element("td", cell, class_="n") for cell in shown]
        rows.append(element("tr", element("th", name, scope="row"), *cells))
    source = [str(record.dataset[key]) for key in ("source", "path") if record.dataset.get(key)]
    return element(
        "section",
        element("h2", "Data"),
        element("p", " · ".join(source), class_="made") if source else None,
        _table(["Split", "Rows", "Clicks", "Click rate"], rows, None) if rows else None,
        _features(record.dataset.get("features") or []),
    )


def _features(features: list[dict[str, Any]]) -> Html:
    """Return a table of features, those with the largest tables first."""
    if not features:
        return element("p", "No feature is known.", class_="absent")
    numbered = list(enumerate(features, start=1))
    numbered.sort(key=lambda one: -measure(one[1].get("rows"), -1))
    largest = max(measure(feature.get("rows"), 0) for feature in features)
    rows = []
    for place, feature in numbered:
        size, lost = measure(feature.get("rows")), measure(feature.get("missing_rate"))
        # Cardinalities span many powers of ten, so their bars do too
        width = math.log10(1 + size) / math.log10(1 + largest) if size > 0 else 0
        width = width if math.isfinite(width) else 1
        rows.append(
            element(
                "tr",
                element("td", str(place), class_="n", data_value=place),
                element("th", str(feature.get("name")), scope="row"),
                element("td", str(feature.get("kind", UNKNOWN))),
                _bar(number(feature.get("rows"), 0), size, width),
                _bar(percent(lost), lost, lost if lost > 0 else 0),
            )
        )
    kinds = [str(feature.get("kind")) for feature in features]
    counts = [f"{number(kinds.count(kind))} {kind}" for kind in dict.fromkeys(kinds)]
    summary = f"{number(len(features))} features: {', '.join(counts)}"
    table = _table(["#", "Feature", "Kind", "Table rows (log bar)", "Missing"], rows, None, "sort")
    return _fold(summary, table, len(features) <= OPEN_ROWS)


def _bar(text: str, value: float, share: float) -> Html:
    known = math.isfinite(value)
    size = element("i", class_="size", style=f"--w: {100 * min(share, 1):.1f}%") if known else None
    meter = element("div", size, element("span", text), class_="meter")
    return element("td", meter, class_="n", data_value=value if known else -1)


def history(record: Record) -> Html | None:
    """Return every evaluation during training."""
    events = [(split, event) for split, seen in record.evaluations.items() for event in seen]
    if not events:
        return None
    events.sort(key=lambda one: measure(one[1].get("step"), 0))
    names = [key for key in METRICS if any(key in event for _, event in events)]
    rows = [
        element(
            "tr",
            element("td", number(event.get("step")), class_="n"),
            element("td", split),
            *(element("td", metric(key, event.get(key)), class_="n") for key in names),
        )
        for split, event in events
    ]
    heads = ["Step", "Split", *(METRICS[name] for name in names)]
    return _fold(f"{number(len(rows))} evaluations during training", _table(heads, rows, None))


def configuration(record: Record) -> Html:
    """Return every setting and the environment."""
    settings = [
        element("tr", element("th", element("code", key), scope="row"), element("td", value))
        for key, value in _flat(record.config)
    ]
    around = [
        element("tr", element("th", key.replace("_", " "), scope="row"), element("td", value))
        for key, value in _flat(
            {key: value for key, value in record.environment.items() if key != "command"}
        )
    ]
    return element(
        "section",
        element("h2", "How it was made"),
        _fold(f"{number(len(settings))} settings", _table(["Setting", "Value"], settings, None)),
        _fold("Environment", _table(["What", "Value"], around, None), True) if around else None,
        history(record),
    )


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings by the dotted names that the command line has for them."""
    flat: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat += _flat(value, f"{prefix}{key}.")
        elif key.endswith("_bytes") and math.isfinite(measure(value)):
            flat.append((prefix + key.removesuffix("_bytes"), human_bytes(measure(value))))
        elif isinstance(value, list):
            flat.append((prefix + key, ", ".join(map(str, value)) or "none"))
        else:
            flat.append((prefix + key, "none" if value is None else str(value)))
    return flat


def onwards(record: Record) -> Html:
    """Return the commands that made this run and that go on from it."""
    lines = [
        element(
            "div",
            element("h3", what),
            element("pre", element("code", text), tabindex=0),
            element("button", "Copy", type="button", class_="copy", aria_label=f"Copy: {what}"),
            class_="command",
        )
        for what, text in commands(record)
    ]
    return element("section", element("h2", "Commands"), *lines)


def _fold(summary: str, body: Html, shown: bool = False) -> Html:
    return element("details", element("summary", summary), body, open=shown)


def _table(heads: list[str], rows: list[Html], caption: str | None, class_: str = "") -> Html:
    plain = {"Metric", "Feature", "Kind", "Split", "Setting", "What", "Value"}
    if rows and heads[0] == "Split":
        plain = {"Split"}
    top = [
        element("th", text, scope="col", class_=None if text in plain else "n") for text in heads
    ]
    table = element(
        "table",
        element("caption", caption) if caption else None,
        element("thead", element("tr", *top)),
        element("tbody", *rows),
        class_=class_ or None,
    )
    return element(
        "div", table, class_="scroll", tabindex=0, role="region", aria_label=caption or heads[0]
    )


def body(record: Record, training: Html, scores: Html) -> Html:
    """Return the whole page, the figures given."""
    return join(
        head(record),
        element(
            "main",
            comparison(record),
            element("section", element("h2", "Training"), element("div", training, class_="grid")),
            element("section", element("h2", "Scores"), element("div", scores, class_="grid")),
            data(record),
            configuration(record),
            onwards(record),
        ),
    )
