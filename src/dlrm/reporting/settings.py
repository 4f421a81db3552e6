"""The section about how a run was made: settings, environment, every evaluation."""

import math
from typing import Any

from dlrm.reporting.markup import Html, element
from dlrm.reporting.record import Record, measure
from dlrm.reporting.tables import fold, table
from dlrm.reporting.words import METRICS, metric, number
from dlrm.terminal import human_bytes


def section(record: Record) -> Html:
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
        fold(f"{number(len(settings))} settings", table(["Setting", "Value"], settings)),
        fold("Environment", table(["What", "Value"], around), shown=True) if around else None,
        _history(record),
    )


def _history(record: Record) -> Html | None:
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
    listed = table(heads, rows, numbers=[head for head in heads if head != "Split"])
    return fold(f"{number(len(rows))} evaluations during training", listed)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings by the dotted names that the command line has for them."""
    flat: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat += _flat(value, f"{prefix}{key}.")
        elif key.endswith("_bytes") and math.isfinite(measure(value)):
            flat.append((prefix + key.removesuffix("_bytes"), human_bytes(measure(value))))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for place, item in enumerate(value, start=1):
                flat += _flat(item, f"{prefix}{key}.{place}.")
        elif isinstance(value, list):
            flat.append((prefix + key, ", ".join(map(str, value)) or "none"))
        else:
            flat.append((prefix + key, "none" if value is None else str(value)))
    return flat
