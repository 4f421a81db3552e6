"""What another machine would bring, on a page of benchmarks: sliders, and what bench.js moves.

The formula is that of `dlrm.bench.cost.what_if`, of which bench.js has its own copy; the tests hold
the two against each other in a browser.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from dlrm.reporting.bench_found import Found
from dlrm.reporting.bench_machine import binary, caches
from dlrm.reporting.bench_operators import headlines, role
from dlrm.reporting.bench_rows import TERMS, Step
from dlrm.reporting.bench_source import data
from dlrm.reporting.markup import Html, element, join
from dlrm.reporting.record import measure
from dlrm.reporting.words import percent

CORES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
RATES = ("compute", "stream", "latency")
MOST = 100_000
"""Cores that a row may be of."""
FACTORS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Of arithmetic and of memory bandwidth."""
LATENCIES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0)


def section(found: Found) -> Html | None:
    """Return the sliders; hidden until a script moves them, which the page says without one."""
    steps = [(step, told) for step in found.steps if (told := _told(step, found)) is not None]
    if not steps:
        return None
    cores = sorted({*CORES, *(told["cores"] for _, told in steps)})
    every = [operator for _, told in steps for operator in told["operators"]]
    sizes = sorted({1.0, *(float(factor) for each in every for factor, _ in each["cache"])})
    first = headlines(found.steps)[0]
    options = [
        element("option", step.label, value=at, selected=step is first)
        for at, (step, _) in enumerate(steps)
    ]
    form = element(
        "form",
        element("label", "Step ", element("select", *options, name="step"), class_="wide"),
        _slider("cores", "Cores", cores),
        _slider("flops", "Arithmetic of a core", FACTORS),
        _slider("bandwidth", "Memory bandwidth", FACTORS),
        _slider("latency", "Memory latency", LATENCIES),
        _slider("cache", "Last-level cache", sizes) if len(sizes) > 1 else None,
        _choice("precision", "Products of the MLPs", _kinds(every, "precision")),
        _choice("rows", "Rows of the tables", _kinds(every, "rows")),
        element("button", "As measured", type="reset"),
        id="what-if",
    )
    shown = element(
        "div",
        form,
        element("div", id="predicted", class_="predicted", aria_live="polite"),
        id="sliders",
        hidden=True,
    )
    said = (
        "The model that was fitted to this machine, asked about another one. It knows nothing of "
        "what it was not fitted to: another kind of processor, more than one socket, a network."
    )
    return element(
        "section",
        element("h2", "What would change it"),
        element("p", said, class_="note"),
        element("noscript", element("p", "The sliders need JavaScript.", class_="absent")),
        shown,
        data("steps", [told for _, told in steps]),
    )


def _told(step: Step, found: Found) -> dict[str, Any] | None:
    """Return what bench.js needs of a step; None where the row does not say it."""
    exponents = step.row.get("exponents")
    operators = [_operator(each) for each in step.row["operators"]]
    cores = measure(step.row.get("threads"), 1)
    if not isinstance(exponents, Mapping) or None in operators or not 1 <= cores <= MOST:
        return None
    host = found.host(step.machine)
    last = caches(host)[-1:] if host else []
    return {
        "batch": step.batch_size,
        "ms": step.step_ms,
        "cores": int(cores),
        "cache_bytes": last[0][1] if last else None,
        "cache_name": binary(last[0][1]) if last else None,
        "error": percent(step.model_error) if isfinite(step.model_error) else None,
        "here": percent(abs(off))
        if isfinite(off := step.predicted_ms / step.step_ms - 1)
        else None,
        "exponents": {name: measure(exponents.get(name), 0) for name in RATES},
        "operators": operators,
    }


def _operator(of: Mapping[str, Any]) -> dict[str, Any] | None:
    terms = of.get("terms")
    values = [measure(terms.get(name)) for name in TERMS] if isinstance(terms, Mapping) else []
    if not values or not all(map(isfinite, values)):
        return None
    name = str(of.get("name"))
    return {
        "name": name,
        "role": role(name),
        "terms": dict(zip(TERMS, values, strict=True)),
        "cache": _pairs(of.get("cache")),
        "precision": _multipliers(of.get("precision")),
        "rows": _multipliers(of.get("rows")),
    }


def _pairs(of: object) -> list[list[float]]:
    """Return factors of the cache and their multipliers, in order."""
    found = [
        [measure(each[0]), measure(each[1])]
        for each in (of if isinstance(of, list) else [])
        if isinstance(each, list) and len(each) == 2
    ]
    return sorted(each for each in found if each[0] > 0 and isfinite(sum(each))) or [[1.0, 1.0]]


def _multipliers(of: object) -> dict[str, float]:
    found = of if isinstance(of, Mapping) else {}
    return {str(kind): measure(times) for kind, times in found.items() if isfinite(measure(times))}


def _slider(name: str, label: str, choices: Sequence[float]) -> Html:
    """Return a slider over some values, which the script names beside it."""
    values = " ".join(f"{choice:g}" for choice in choices)
    at = list(choices).index(1) if name != "cores" else 0
    moved = element(
        "input", type="range", name=name, min=0, max=len(choices) - 1, step=1, value=at,
        data_choices=values,
    )  # fmt: skip
    return element("label", element("span", label, " ", element("output")), moved)


def _choice(name: str, label: str, kinds: Sequence[str]) -> Html | None:
    if not kinds:
        return None
    options = [element("option", kind or "as measured", value=kind) for kind in ("", *kinds)]
    return element("label", join(f"{label} "), element("select", *options, name=name))


def _kinds(operators: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return list(dict.fromkeys(str(kind) for each in operators for kind in each[name]))
