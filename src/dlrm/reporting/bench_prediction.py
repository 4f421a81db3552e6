"""How far off the cost model is, on a page of benchmarks."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from dlrm.reporting import charts
from dlrm.reporting.charts import Guess
from dlrm.reporting.figures import figure, key
from dlrm.reporting.markup import Html, element
from dlrm.reporting.record import measure
from dlrm.reporting.tables import table
from dlrm.reporting.words import percent

ROLES = ("model", "train", "test")
"""Colours, of what was predicted first, second and third."""


def section(rows: Sequence[Mapping[str, Any]]) -> Html | None:
    """Return what the rows of the suite `prediction` say; the newest of them is drawn."""
    if not rows:
        return None
    row = rows[-1]
    summary = row.get("summary")
    steps = row.get("steps")
    if not isinstance(summary, Mapping) or not isinstance(steps, Sequence):
        return None
    colours = dict(zip(summary, ROLES, strict=False))
    guesses = [
        Guess(measure(each.get("predicted_ms")), measure(each.get("ms")), colours[each["what"]])
        for each in steps
        if isinstance(each, Mapping) and each.get("what") in colours
    ]
    guesses = [g for g in guesses if isfinite(g.predicted_ms * g.ms) and g.predicted_ms * g.ms > 0]
    if not guesses:
        return None
    title = "Predicted beside measured"
    goal = measure(row.get("goal"), 0.15)
    said = (
        "Each dot is a step of a random model that the cost model was not fitted to; the band is "
        f"±{percent(goal)}. What-if starts from the measured step."
    )
    keys = [key(_name(what), role, dot=True) for what, role in colours.items()]
    heads = ("What", "Steps", "Median error", "Nine of ten below")
    found = [
        element(
            "tr",
            element("th", _name(what), scope="row"),
            *(
                element("td", cell, class_="n")
                for cell in (
                    str(each.get("steps")),
                    percent(measure(each.get("median"))),
                    percent(measure(each.get("ninth"))),
                )
            ),
        )
        for what, each in summary.items()
        if isinstance(each, Mapping)
    ]
    drawn = charts.predictions("predictions", title, guesses, goal)
    return element(
        "section",
        element("h2", "How far off predictions are"),
        element("div", figure(title, keys, drawn, said), class_="grid"),
        table(heads, found, numbers=heads[1:]),
    )


def sentence(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return how far off the cost model is, in a sentence; None where no row says it."""
    summary = rows[-1].get("summary") if rows else None
    step = summary.get("step") if isinstance(summary, Mapping) else None
    if not isinstance(step, Mapping) or not isfinite(measure(step.get("median"))):
        return None
    off = percent(measure(step.get("median")))
    return f"The cost model is {off} off in the median, on {step.get('steps')} steps."


def _name(what: str) -> str:
    words = {"step": "steps of other models", "precision": "what-if: the other precision"}
    return words.get(what, f"what-if: {what}")
