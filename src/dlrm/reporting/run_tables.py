"""The tables of a run's report: metrics, members of an ensemble, data and settings."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dlrm.reporting.page import Cell, Table, Text
from dlrm.reporting.record import Event, Record
from dlrm.reporting.verdict import baseline_name, gap, values
from dlrm.reporting.words import (
    METRICS,
    UNKNOWN,
    duration,
    interval,
    meaning,
    measure,
    metric,
    number,
    percent,
)
from dlrm.terminal import human_bytes

OPEN_ROWS = 60
"""Features that are shown without being asked for."""

OF_MEMBERS = {
    "classification": ("auc", "log_loss", "normalized_entropy"),
    "regression": ("rmse", "mae", "r2"),
}
"""By task, the metrics of each member of an ensemble."""


def result(record: Record) -> list[Table]:
    """Return the final metrics of each split, the model beside the baseline and the optimum."""
    tables = []
    for split, final in record.finals.items():
        who = [one for one in ("baseline", "trees", "model", "optimum") if values(final, one)]
        if "model" not in who:
            continue
        names = {
            "baseline": baseline_name(record).capitalize(),
            "trees": "LightGBM",
            "model": record.name if record.size > 1 else "Model",
            "optimum": "Best possible",
        }
        gaps = {key: gap(final, key) for key in METRICS}
        heads = [
            "Metric",
            *(names[one] for one in who),
            *(["Gap closed"] if any(gaps.values()) else []),
        ]
        rows: list[list[str | Cell]] = []
        first = split == record.split
        for key, label in METRICS.items():
            # A run of an earlier release does not know every metric
            if any(key in values(final, one) for one in who):
                means = meaning(key, regression=record.task == "regression") if first else ""
                row: list[str | Cell] = [Cell(label, means)]
                row += [_measured(values(final, one), key, strong=one == "model") for one in who]
                if any(gaps.values()):
                    closed = gaps[key]
                    row.append(percent(closed.closed) if closed else "")
                rows.append(row)
        model = record.averaged if record.size > 1 else f"model of step {number(record.final_step)}"
        what = f"{split.capitalize()} rows, {model}"
        if first and any(interval(values(final, "model"), key) for key in ("log_loss", "rmse")):
            what += "; below each value its 95% interval, for the luck of the rows"
        tables.append(
            Table(heads, rows, heads[1:], what if first else "", summary="" if first else what)
        )
    return tables


def _measured(metrics: Event, key: str, *, strong: bool) -> Cell:
    return Cell(metric(key, metrics.get(key)), interval(metrics, key), strong)


def members(record: Record) -> list[Table]:
    """Return the members of an ensemble, and what averaging them brings; nothing of one model."""
    if not record.members:
        return []
    record = record.by_label[0]
    shown, split = OF_MEMBERS[record.task], record.split or "validation"
    alone = [values(member.finals.get(split, {}), "model") for member in record.members]

    def texts(metrics: Event) -> list[str]:
        return [metric(name, metrics.get(name)) for name in shown]

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
        known = {name: [measure(metrics.get(name)) for metrics in alone] for name in shown}
        means = texts({name: sum(seen) / len(seen) for name, seen in known.items()})
        rows.append(["each alone, mean", "", *means, "", "", ""])
        whole = [Cell(text, strong=True) for text in texts(values(record.final, "model"))]
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
    splits = record.dataset.get("splits") or {}
    parts: list[Any] = []
    if source := [
        str(record.dataset[key]) for key in ("source", "path") if record.dataset.get(key)
    ]:
        parts.append(Text(" · ".join(source), "about"))
    parts += [Text(str(note), "about") for note in record.dataset.get("notes") or ()]
    if splits:
        facts = [_facts(record, counts) for counts in splits.values()]
        rows = [[name, *known.values()] for name, known in zip(splits, facts, strict=True)]
        heads = list(facts[0])
        parts.append(Table(["Split", *heads], rows, heads))
    if columns := record.dataset.get("columns"):
        rows = [
            [str(column.get(key)) for key in ("name", "taken_for", "why")] for column in columns
        ]
        summary = f"{number(len(columns))} columns, and why"
        heads = ["Column", "Taken for", "Because"]
        parts.append(Table(heads, rows, summary=summary, shown=len(rows) <= OPEN_ROWS))
    features = record.dataset.get("features")
    parts.append(_features(features) if features else Text("No feature is known.", "absent"))
    return parts


def _facts(record: Record, counts: Mapping[str, Any]) -> dict[str, str]:
    """Return what is known of a split, in words by head: its rows, and how its labels are."""

    def of(label: str, key: str) -> float:
        known = counts.get(key)
        return measure(known.get(label)) if isinstance(known, dict) else math.nan

    total = measure(counts.get("rows"))
    facts = {"Rows": number(counts.get("rows"), 0)}
    for label in record.labels:
        suffix = f", {label}" if len(record.labels) > 1 else ""
        if record.task == "regression":
            facts[f"Mean label{suffix}"] = number(of(label, "mean"))
            facts[f"Range{suffix}"] = f"{number(of(label, 'min'))} to {number(of(label, 'max'))}"
        else:
            positives = of(label, "positives")
            facts[f"Positives{suffix}"] = number(positives, 0)
            facts[f"Positive rate{suffix}"] = percent(positives / total) if total > 0 else UNKNOWN
    return facts


def _features(features: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of features, those with the largest tables first."""
    order = sorted(
        enumerate(features, start=1), key=lambda one: -measure(one[1].get("num_embeddings"), -1)
    )
    largest = max(measure(feature.get("num_embeddings"), 0) for feature in features)
    rows: list[list[str | Cell]] = []
    for place, feature in order:
        size, lost = measure(feature.get("num_embeddings")), measure(feature.get("missing_rate"))
        # Cardinalities span many powers of ten, so their bars do too
        width = math.log10(1 + size) / math.log10(1 + largest) if size > 0 else 0.0
        rows.append(
            [
                Cell(str(place), value=place),
                str(feature.get("name")),
                str(feature.get("kind", UNKNOWN)),
                _bar(number(feature.get("num_embeddings"), 0), size, width),
                _bar(percent(lost), lost, lost),
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


def _bar(text: str, value: float, share: float) -> Cell:
    if not math.isfinite(value):
        return Cell(text, value=-1)
    return Cell(text, value=value, bar=min(max(share, 0.0), 1.0) if math.isfinite(share) else 1.0)


def settings(record: Record) -> list[Any]:
    """Return every setting, the environment, and every evaluation during training."""
    known = _flat(record.config)
    summary = f"{number(len(known))} settings"
    parts: list[Any] = [Table(["Setting", "Value"], known, summary=summary, code=True)]
    around = _flat({key: value for key, value in record.environment.items() if key != "command"})
    if around:
        rows = [[key.replace("_", " "), value] for key, value in around]
        parts.append(Table(["What", "Value"], rows, summary="Environment", shown=True))
    events = [(split, event) for split, seen in record.evaluations.items() for event in seen]
    events.sort(key=lambda one: measure(one[1].get("step"), 0))
    if events:
        names = [key for key in METRICS if any(key in event for _, event in events)]
        rows = [
            [number(event.get("step")), split, *(metric(key, event.get(key)) for key in names)]
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
        elif key.endswith("_bytes") and math.isfinite(measure(value)):
            flat.append([prefix + key.removesuffix("_bytes"), human_bytes(measure(value))])
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for place, item in enumerate(value, start=1):
                flat += _flat(item, f"{prefix}{key}.{place}.")
        elif isinstance(value, list):
            flat.append([prefix + key, ", ".join(map(str, value)) or "none"])
        else:
            flat.append([prefix + key, "none" if value is None else str(value)])
    return flat
