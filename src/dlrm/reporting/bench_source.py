"""Where figures come from, on a page of benchmarks: provenance, raw rows, rows not drawn."""

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from dlrm.bench.results import PROVENANCE
from dlrm.reporting.bench_rows import Row
from dlrm.reporting.markup import Html, element, join
from dlrm.reporting.tables import fold, table
from dlrm.reporting.words import number, percent

RANGES = ("load", "steal_share", "others_share", "taken")
"""Of which the least and the most are said."""
MOST = 8
"""Values of one kind that are listed."""


def section(rows: Sequence[Row], left_out: Sequence[str]) -> Html:
    """Return what rows say of themselves, and the rows."""
    listed = [
        element("tr", element("th", name.replace("_", " "), scope="row"), element("td", said))
        for name in PROVENANCE
        if name != "command" and (said := _values(rows, name))
    ]
    commands = dict.fromkeys(str(row["command"]) for row in rows if row.get("command"))
    save = element("button", "Save the rows", type="button", id="save", hidden=True)
    return element(
        "section",
        element("h2", "Where the figures come from"),
        table(["Of the rows", ""], listed),
        fold(f"{len(commands)} commands", _list(commands), shown=len(commands) <= MOST)
        if commands
        else None,
        fold(f"{len(left_out)} rows are not drawn", _list(left_out), shown=True)
        if left_out
        else None,
        element(
            "p",
            f"All {len(rows):,} rows are in this file, as JSON in the element “rows”. ",
            save,
            class_="note",
        ),
        data("rows", rows),
    )


def data(name: str, rows: Sequence[Any]) -> Html:
    """Return values as a block that scripts can read and that is no script, a value a line."""
    lines = ",\n".join(json.dumps(_plain(row), allow_nan=False) for row in rows)
    # What could end the block, or open a comment in it, is written as JSON's own escapes.
    safe = lines.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return element("script", Html(f"[\n{safe}\n]"), type="application/json", id=name)


def _values(rows: Sequence[Row], name: str) -> str:
    found = list(dict.fromkeys(_said(name, row[name]) for row in rows if row.get(name) is not None))
    if name in RANGES and len(found) > 2:
        kind = str if name == "taken" else int | float
        values = sorted(row[name] for row in rows if isinstance(row.get(name), kind))
        return f"{_said(name, values[0])} to {_said(name, values[-1])}"
    more = f", and {len(found) - MOST} more" if len(found) > MOST else ""
    return ", ".join(found[:MOST]) + more


def _said(name: str, value: object) -> str:
    if name.endswith("_share") and isinstance(value, float):
        return percent(value)
    return number(value, 2) if isinstance(value, int | float) else str(value)


def _list(lines: Sequence[str] | Mapping[str, Any]) -> Html:
    items = [element("li", element("code", line)) for line in lines]
    return join(element("ul", *items, class_="commands"))


def _plain(value: Any) -> Any:
    """Return a value that JSON has words for."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
