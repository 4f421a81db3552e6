"""The numbers of a run's tables: metrics beside each other, members, data and settings."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from dlrm.metrics import SELECTING
from dlrm.reporting.record import Event, Record, values
from dlrm.reporting.verdict import baseline_name, gap
from dlrm.reporting.words import METRICS, UNKNOWN, interval, measure, number, percent
from dlrm.terminal import human_bytes

OPEN_ROWS = 60
"""Features that are shown without being asked for."""


class Split(NamedTuple):
    """The final metrics of a split, the model beside the baseline and the optimum."""

    name: str
    model: str
    """Which of the sides is the model."""
    sides: dict[str, Event]
    """What is measured, in words -> its metrics."""
    gaps: dict[str, float]
    """Metric -> share of the way from the baseline to the optimum."""

    @property
    def metrics(self) -> list[str]:
        """Metrics that a side has; a run of an earlier release does not know every one."""
        return [key for key in METRICS if any(key in metrics for metrics in self.sides.values())]

    @property
    def intervals(self) -> bool:
        """Whether it is known where the model's metrics lie."""
        return any(interval(self.sides[self.model], name) for name in ("log_loss", "rmse"))


def results(record: Record) -> list[Split]:
    """Return the final metrics of each split."""
    names = {
        "baseline": baseline_name(record).capitalize(),
        "trees": "LightGBM",
        "model": record.name if record.size > 1 else "Model",
        "optimum": "Best possible",
    }
    splits = []
    for split, final in record.finals.items():
        sides = {names[who]: metrics for who in names if (metrics := values(final, who))}
        gaps = {key: between.closed for key in METRICS if (between := gap(final, key))}
        if names["model"] in sides:
            splits.append(Split(split, names["model"], sides, gaps))
    return splits


def tables(record: Record) -> dict[str, Any]:
    """Return what the tables of the report show, by name."""
    known, chosen, one = record.dataset, SELECTING[record.task][:3], record.by_label[0]
    source = " · ".join(str(known[key]) for key in ("source", "path") if known.get(key))
    environment = {key: value for key, value in record.environment.items() if key != "command"}
    if products := record.final.get("products"):
        environment["products"] = products
    evaluations = [event for events in record.evaluations.values() for event in events]
    evaluations.sort(key=lambda event: measure(event.get("step"), 0))
    features = known.get("features") or []
    kinds = [str(feature.get("kind")) for feature in features]
    members = [values(m.finals.get(record.split or "", {}), "model") for m in one.members]
    return {
        "results": results,
        "chosen": chosen,
        "alone": [
            sum(measure(metrics.get(name)) for metrics in members) / max(len(members), 1)
            for name in chosen
        ],
        "about_data": [*([source] if source else []), *map(str, known.get("notes") or ())],
        "splits": [
            (name, counts.get("rows"), _facts(record, counts))
            for name, counts in (known.get("splits") or {}).items()
        ],
        "features": _features(features),
        "kinds": ", ".join(f"{number(kinds.count(k))} {k}" for k in dict.fromkeys(kinds)),
        "most": OPEN_ROWS,
        "settings": _flat(record.config),
        "environment": _flat(environment),
        "evaluations": evaluations,
        "measured": {k: n for k, n in METRICS.items() if any(k in event for event in evaluations)},
    }


def _facts(record: Record, counts: Mapping[str, Any]) -> dict[str, str]:
    """Return how the labels of a split are, in words by head."""
    total, facts = measure(counts.get("rows")), {}
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


def _features(features: list[Event]) -> list[tuple[int, Event, float, float, float]]:
    """Return features, those with the largest tables first.

    Of each its place, what is known of it, rows of its table, length of a bar for these, and share
    of rows where it is missing; NaN for what is not known.
    """
    rows = []
    largest = max((measure(feature.get("num_embeddings"), 0) for feature in features), default=0)
    for place, feature in enumerate(features, start=1):
        size = measure(feature.get("num_embeddings"))
        # Cardinalities span many powers of ten, so their bars do too
        width = math.log1p(size) / math.log1p(largest) if size > 0 else math.nan
        rows.append((place, feature, size, width, measure(feature.get("missing_rate"))))
    return sorted(rows, key=lambda row: -row[2] if row[2] >= 0 else 1.0)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings by the dotted names that the command line has for them."""
    flat: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            numbered = {str(place): item for place, item in enumerate(value, start=1)}
            flat += _flat(numbered, f"{prefix}{key}.")
        elif key.endswith("_bytes") and math.isfinite(measure(value)):
            flat.append((prefix + key.removesuffix("_bytes"), human_bytes(measure(value))))
        elif isinstance(value, list):
            flat.append((prefix + key, ", ".join(map(str, value)) or "none"))
        else:
            flat.append((prefix + key, "none" if value is None else str(value)))
    return flat
