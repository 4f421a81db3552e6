"""The section on how far off predictions are."""

from typing import Any

import pytest

from dlrm.reporting.bench import page
from dlrm.reporting.bench_rows import Row
from dlrm.reporting.bench_suites import predictions
from dlrm.reporting.page import render
from reporting import benchmarks

STEPS = [
    {"what": what, "predicted_ms": 1.1 * ms, "ms": ms, "error": 0.1}
    for what in ("step", "cores 2 to 1")
    for ms in (0.5, 5.0, 50.0)
]
SUMMARY = {what: {"steps": 3, "median": 0.1, "ninth": 0.2} for what in ("step", "cores 2 to 1")}


def row(**values: Any) -> dict[str, Any]:
    found = {"steps": STEPS, "summary": SUMMARY, "goal": 0.15, "met": True}
    return benchmarks.row("prediction", {**found, **values})


def test_predictions_are_drawn_beside_measurements() -> None:
    html = render(page([row()]))
    assert "How far off predictions are" in html
    assert "steps of other models" in html
    assert "what-if: cores 2 to 1" in html
    assert "The cost model is 10% off in the median, on 3 steps." in html


def test_the_newest_row_counts() -> None:
    newer = {what: {"steps": 3, "median": 0.07, "ninth": 0.2} for what in SUMMARY}
    _, kinds = predictions([Row(row()), Row(row(summary=newer))])
    assert [errors["median"] for _, errors in kinds] == [0.07, 0.07]


@pytest.mark.parametrize(
    "values",
    [
        {"summary": None},
        {"steps": 7},
        {"steps": []},
        {"steps": [{"what": "step", "ms": "much", "predicted_ms": 1.0}]},
        {"steps": [{"what": "novel", "ms": 1.0, "predicted_ms": 1.0}]},
    ],
)
def test_a_damaged_row_is_not_drawn(values: dict[str, Any]) -> None:
    assert predictions([Row(row(**values))]) == (None, [])
    assert predictions([]) == (None, [])
