"""The tables of a run's report: metrics, members of an ensemble, data and settings."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dlrm.metrics import SELECTING
from dlrm.reporting.page import Cell, Table
from dlrm.reporting.record import Event, Record, values
from dlrm.reporting.verdict import baseline_name, gap
from dlrm.reporting.words import (
    MEANINGS,
    METRICS,
    UNKNOWN,
    duration,
    interval,
    measure,
    number,
    percent,
)
from dlrm.terminal import human_bytes

OPEN_ROWS = 60
"""Features that are shown without being asked for."""


def result(record: Record) -> list[Table]:
    """Return the final metrics of each split, the model beside the baseline and the optimum."""
    tables = []
    names = {
        "baseline": baseline_name(record).capitalize(),
        "trees": "LightGBM",
        "model": record.name if record.size > 1 else "Model",
        "optimum": "Best possible",
    }
    for split, final in record.finals.items():
        known = {who: metrics for who in names if (metrics := values(final, who))}
        if "model" not in known:
            continue
        first, gaps = split == record.split, {key: gap(final, key) for key in METRICS}
        rows: list[list[str | Cell]] = []
        for key, label in METRICS.items():
            # A run of an earlier release does not know every metric
            if not any(key in metrics for metrics in known.values()):
                continue
            row: list[str | Cell] = [Cell(label, _meaning(record, key) if first else "")]
            row += [
                Cell(number(metrics.get(key)), interval(metrics, key), who == "model")
                for who, metrics in known.items()
            ]
            if any(gaps.values()):
                row.append(percent(between.closed) if (between := gaps[key]) else "")
            rows.append(row)
        model = record.averaged if record.size > 1 else f"model of step {number(record.final_step)}"
        what = f"{split.capitalize()} rows, {model}"
        if first and any(interval(known["model"], key) for key in ("log_loss", "rmse")):
            what += "; below each value its 95% interval, for the luck of the rows"
        heads = ["Metric", *(names[who] for who in known), *(["Gap closed"] * any(gaps.values()))]
        caption, summary = (what, "") if first else ("", what)
        tables.append(Table(heads, rows, heads[1:], caption, summary))
    return tables


def _meaning(record: Record, name: str) -> str:
    if name == "calibration" and record.task == "regression":
        return "mean prediction over mean label; 1 is right"
    return MEANINGS[name]


def members(record: Record) -> list[Table]:
    """Return the members of an ensemble, and what averaging them brings; nothing of one model."""
    if not record.members:
        return []
    record = record.by_label[0]
    shown, split = SELECTING[record.task][:3], record.split or "validation"
    alone = [values(member.finals.get(split, {}), "model") for member in record.members]

    def texts(metrics: Event) -> list[str]:
        return [number(metrics.get(name)) for name in shown]

    rows: list[list[str | Cell]] = [
        [
            f"{place}: {member.name}",
            number(member.config.get("seed")),
            *texts(metrics),
            number(member.final_step) if member.finals else "",
            number(member.last_step),
            duration(member.elapsed_s) if member.steps else "",
        ]
        for place, (member, metrics) in enumerate(zip(record.members, alone, strict=True))
    ]
    last = ""
    if record.finals:
        means = {
            name: sum(measure(metrics.get(name)) for metrics in alone) / len(alone)
            for name in shown
        }
        whole = [Cell(text, strong=True) for text in texts(values(record.final, "model"))]
        rows.append(["each alone, mean", "", *texts(means), "", "", ""])
        rows.append([record.name, "", *whole, "", "", ""])
        last = f"; the last row is the {record.averaged}"
    heads = ["", "Seed", *(METRICS[name] for name in shown), "Best step", "Steps", "Training"]
    label = f", label {record.labels[0]}" if record.place else ""
    caption = (
        f"{split.capitalize()} rows{label}{last}. Each member has a run directory and a report of "
        f"its own: dlrm report {record.path}/members/0"
    )
    return [Table(heads, rows, heads[1:], caption)]


def data(record: Record) -> list[Any]:
    """Return the splits, what the columns of a table were taken for, and the features."""
    known = record.dataset
    parts: list[Any] = []
    if source := [str(known[key]) for key in ("source", "path") if known.get(key)]:
        parts.append(" · ".join(source))
    parts += map(str, known.get("notes") or ())
    if splits := known.get("splits"):
        facts = {name: _facts(record, counts) for name, counts in splits.items()}
        heads = list(next(iter(facts.values())))
        rows = [[name, *texts.values()] for name, texts in facts.items()]
        parts.append(Table(["Split", *heads], rows, heads))
    if columns := known.get("columns"):
        rows = [
            [str(column.get(key)) for key in ("name", "taken_for", "why")] for column in columns
        ]
        summary = f"{number(len(columns))} columns, and why"
        heads = ["Column", "Taken for", "Because"]
        parts.append(Table(heads, rows, summary=summary, shown=len(rows) <= OPEN_ROWS))
    features = known.get("features")
    return [*parts, _features(features) if features else "No feature is known."]


def _facts(record: Record, counts: Mapping[str, Any]) -> dict[str, str]:
    """Return what is known of a split, in words by head: its rows, and how its labels are."""
    total = measure(counts.get("rows"))
    facts = {"Rows": number(counts.get("rows"), 0)}
    for label in record.labels:
        suffix = f", {label}" if len(record.labels) > 1 else ""
        mean, low, high, positives = (
            measure((counts.get(key) or {}).get(label))
            for key in ("mean", "min", "max", "positives")
        )
        if record.task == "regression":
            facts[f"Mean label{suffix}"] = number(mean)
            facts[f"Range{suffix}"] = f"{number(low)} to {number(high)}"
        else:
            facts[f"Positives{suffix}"] = number(positives, 0)
            facts[f"Positive rate{suffix}"] = percent(positives / total) if total > 0 else UNKNOWN
    return facts


def _features(features: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of features, those with the largest tables first."""
    sizes = [measure(feature.get("num_embeddings"), -1) for feature in features]
    rows: list[list[str | Cell]] = []
    for place in sorted(range(len(features)), key=lambda place: -sizes[place]):
        feature, size = features[place], sizes[place]
        lost = measure(feature.get("missing_rate"), -1)
        # Cardinalities span many powers of ten, so their bars do too
        width = math.log1p(size) / math.log1p(max(sizes)) if size > 0 else None
        rows.append(
            [
                Cell(str(place + 1), value=place + 1),
                str(feature.get("name")),
                str(feature.get("kind", UNKNOWN)),
                Cell(number(feature.get("num_embeddings"), 0), value=size, bar=width),
                Cell(
                    UNKNOWN if lost < 0 else percent(lost),
                    value=lost,
                    bar=None if lost < 0 else min(lost, 1.0),
                ),
            ]
        )
    kinds = [str(feature.get("kind")) for feature in features]
    counts = [f"{number(kinds.count(kind))} {kind}" for kind in dict.fromkeys(kinds)]
    size = "Table rows (log bar)"
    return Table(
        ["#", "Feature", "Kind", size, "Missing"],
        rows,
        ("#", size, "Missing"),
        summary=f"{number(len(features))} features: {', '.join(counts)}",
        shown=len(features) <= OPEN_ROWS,
        named=1,
        sorted_by=size,
    )


def settings(record: Record) -> list[Any]:
    """Return every setting, the environment, and every evaluation during training."""
    known = _flat(record.config)
    summary = f"{number(len(known))} settings"
    parts: list[Any] = [Table(["Setting", "Value"], known, summary=summary, code=True)]
    if around := _flat({key: v for key, v in record.environment.items() if key != "command"}):
        rows = [[key.replace("_", " "), value] for key, value in around]
        parts.append(Table(["What", "Value"], rows, summary="Environment", shown=True))
    events = [(split, event) for split, seen in record.evaluations.items() for event in seen]
    events.sort(key=lambda one: measure(one[1].get("step"), 0))
    if events:
        names = [key for key in METRICS if any(key in event for _, event in events)]
        rows = [
            [number(event.get("step")), split, *(number(event.get(key)) for key in names)]
            for split, event in events
        ]
        heads = ["Step", "Split", *(METRICS[name] for name in names)]
        summary = f"{number(len(rows))} evaluations during training"
        parts.append(Table(heads, rows, [heads[0], *heads[2:]], summary=summary, named=None))
    return parts


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Return nested settings by the dotted names that the command line has for them."""
    flat: list[list[str]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            numbered = {str(place): item for place, item in enumerate(value, start=1)}
            flat += _flat(numbered, f"{prefix}{key}.")
        elif key.endswith("_bytes") and math.isfinite(measure(value)):
            flat.append([prefix + key.removesuffix("_bytes"), human_bytes(measure(value))])
        elif isinstance(value, list):
            flat.append([prefix + key, ", ".join(map(str, value)) or "none"])
        else:
            flat.append([prefix + key, "none" if value is None else str(value)])
    return flat
