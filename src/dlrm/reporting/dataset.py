"""The section about the data: splits, and every feature."""

import math
from typing import Any

from dlrm.reporting.markup import Html, element
from dlrm.reporting.record import Record, measure
from dlrm.reporting.tables import fold, table
from dlrm.reporting.words import UNKNOWN, number, percent

OPEN_ROWS = 60
"""Features that are shown without being asked for."""


def section(record: Record) -> Html:
    """Return the splits and the features of the dataset."""
    splits = record.dataset.get("splits") or {}
    facts = [_facts(record, counts) for counts in splits.values()]
    heads = list(facts[0]) if facts else []
    rows = []
    for name, texts in zip(splits, facts, strict=True):
        cells = [element("td", text, class_="n") for text in texts.values()]
        rows.append(element("tr", element("th", name, scope="row"), *cells))
    source = [str(record.dataset[key]) for key in ("source", "path") if record.dataset.get(key)]
    return element(
        "section",
        element("h2", "Data"),
        element("p", " · ".join(source), class_="made") if source else None,
        table(["Split", *heads], rows, numbers=heads) if rows else None,
        _columns(record.dataset.get("columns") or []),
        _features(record.dataset.get("features") or []),
    )


def _facts(record: Record, counts: dict[str, Any]) -> dict[str, str]:
    """Return what is known of a split, in words by head: its rows, and how its labels are."""
    total = measure(counts.get("rows"))
    facts = {"Rows": number(counts.get("rows"), 0)}
    for label in record.labels:
        suffix = f", {label}" if len(record.labels) > 1 else ""
        if record.task == "regression":
            low, mean, high = (_by_label(counts, key, label) for key in ("min", "mean", "max"))
            facts[f"Mean label{suffix}"] = number(mean)
            facts[f"Range{suffix}"] = f"{number(low)} to {number(high)}"
            continue
        positives = _by_label(counts, "positives", label)
        facts[f"Positives{suffix}"] = number(positives, 0)
        facts[f"Positive rate{suffix}"] = percent(positives / total) if total > 0 else UNKNOWN
    return facts


def _by_label(counts: dict[str, Any], key: str, label: str) -> float:
    values = counts.get(key)
    return measure(values.get(label)) if isinstance(values, dict) else math.nan


def _columns(columns: list[dict[str, Any]]) -> Html | None:
    """Return what the columns of a table were taken for, and why; None where nobody guessed."""
    if not columns:
        return None
    rows = [
        element(
            "tr",
            element("th", str(column.get("name")), scope="row"),
            element("td", str(column.get("taken_for"))),
            element("td", str(column.get("why"))),
        )
        for column in columns
    ]
    listed = table(["Column", "Taken for", "Because"], rows)
    return fold(f"{number(len(columns))} columns, and why", listed, shown=len(rows) <= OPEN_ROWS)


def _features(features: list[dict[str, Any]]) -> Html:
    """Return a table of features, those with the largest tables first."""
    if not features:
        return element("p", "No feature is known.", class_="absent")
    numbered = list(enumerate(features, start=1))
    numbered.sort(key=lambda one: -measure(one[1].get("num_embeddings"), -1))
    largest = max(measure(feature.get("num_embeddings"), 0) for feature in features)
    rows = []
    for place, feature in numbered:
        size, lost = measure(feature.get("num_embeddings")), measure(feature.get("missing_rate"))
        # Cardinalities span many powers of ten, so their bars do too
        width = math.log10(1 + size) / math.log10(1 + largest) if size > 0 else 0
        width = width if math.isfinite(width) else 1
        rows.append(
            element(
                "tr",
                element("td", str(place), class_="n", data_value=place),
                element("th", str(feature.get("name")), scope="row"),
                element("td", str(feature.get("kind", UNKNOWN))),
                _bar(number(feature.get("num_embeddings"), 0), size, width),
                _bar(percent(lost), lost, lost if lost > 0 else 0),
            )
        )
    kinds = [str(feature.get("kind")) for feature in features]
    counts = [f"{number(kinds.count(kind))} {kind}" for kind in dict.fromkeys(kinds)]
    summary = f"{number(len(features))} features: {', '.join(counts)}"
    size = "Table rows (log bar)"
    heads = ["#", "Feature", "Kind", size, "Missing"]
    listed = table(heads, rows, numbers=("#", size, "Missing"), sorted_by=size)
    return fold(summary, listed, shown=len(features) <= OPEN_ROWS)


def _bar(text: str, value: float, share: float) -> Html:
    known = math.isfinite(value)
    size = element("i", class_="size", style=f"--w: {100 * min(share, 1):.1f}%") if known else None
    meter = element("div", size, element("span", text), class_="meter")
    return element("td", meter, class_="n", data_value=value if known else -1)
