"""Steps on a page of benchmarks: where their time goes, and what would change it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dlrm.planning.what_if import CACHED, powers
from dlrm.reporting.bench_rows import Results, Row, Step, binary
from dlrm.reporting.charts.bars import Piece, shares_of, stacks
from dlrm.reporting.charts.drawing import Figure, Key
from dlrm.reporting.words import measure, percent

ROLES = {
    "lookup": "train",
    "bottom": "model",
    "interaction": "test",
    "top": "teal",
    "loss": "olive",
    "dense": "optimum",
    "update": "baseline",
    "other": "muted",
}
"""Colours of operators, by a word of their name: "dense update" is dense, the other an update."""
SPARE = ("model", "optimum", "olive", "teal")

CORES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
MOST_CORES = 100_000
"""Cores that a row may be of."""
FACTORS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Sliders of arithmetic and of memory bandwidth; of latency up to 4."""


def role(name: str) -> str:
    """Return the colour of an operator."""
    words = name.replace("_", " ").replace("-", " ").split()
    known = next((ROLES[word] for word in ROLES if word in words), None)
    return known or SPARE[sum(map(ord, name)) % len(SPARE)]


def times(results: Results) -> list[Figure]:
    """Return where the time of steps goes; nothing without any."""
    if not results.steps:
        return []
    bars = [
        (step.label, [Piece(o["ms"], role(o.text("name"))) for o in step.objects("operators")])
        for step in results.steps
    ]
    drawn = [(text, [piece for piece in pieces if piece.value > 0]) for text, pieces in bars]
    shares = shares_of("shares", "Share of the step", drawn)
    shares.note = "Like Figure 6 of the paper; shares below 7% are in the tables."
    shares.legend = _legend(results.steps)
    groups = enumerate(results.groups)
    return [shares, *(_by_batch(f"batches-{at}", group) for at, group in groups if len(group) > 1)]


def _legend(steps: Sequence[Step]) -> list[Key]:
    names = dict.fromkeys(o.text("name") for step in steps for o in step.objects("operators"))
    return [Key(name, role(name), "square") for name in names]


def _by_batch(name: str, group: Sequence[Step]) -> Figure:
    bars, texts = [passes(step) for step in group], [f"{s['batch_size']:,.0f}" for s in group]
    title, per = f"By batch size: {group[0].setting}", "ms for 1,000 samples"
    figure = stacks(name, title, bars, x_label="samples a step", y_label=per, texts=texts)
    figure.note = "From bottom to top as in the legend."
    if any(piece.light for pieces in bars for piece in pieces):
        figure.note += " The fainter part of an operator is its backward pass."
    figure.legend = _legend(group)
    return figure


def passes(step: Step) -> list[Piece]:
    """Return forward and backward pass of each operator, in ms for 1,000 samples."""
    pieces = []
    for operator in step.objects("operators"):
        scale, color = 1e3 / step["batch_size"], role(operator.text("name"))
        both = operator["backward_ms"] > 0 and operator["forward_ms"] > 0
        backward = operator["backward_ms"] if both else 0.0
        pieces.append(Piece(scale * (operator["ms"] - backward), color))
        pieces.append(Piece(scale * backward, color, light=True))
    return [piece for piece in pieces if piece.value > 0]


def what_if(results: Results) -> dict[str, Any]:
    """Return what sliders over the fitted model need, of the steps whose rows say it."""
    formulas = [formula for step in results.steps if (formula := _formula(step, results))]
    every = [operator for formula in formulas for operator in formula["operators"]]

    def kinds(name: str) -> list[str]:
        return list(dict.fromkeys(kind for operator in every for kind in operator[name]))

    return {
        "formulas": formulas,
        "sliders": (
            ("cores", "Cores", sorted({*CORES, *(formula["cores"] for formula in formulas)})),
            ("flops", "Arithmetic of a core", FACTORS),
            ("bandwidth", "Memory bandwidth", FACTORS),
            ("latency", "Memory latency", FACTORS[:9]),
            (
                "cache",
                "Last-level cache",
                sorted({1.0, *(x for o in every for x, _ in o["cache"])}),
            ),
        ),
        "choices": (
            ("precision", "Products of the MLPs", kinds("precision")),
            ("rows", "Rows of the tables", kinds("rows")),
        ),
    }


def _formula(step: Step, results: Results) -> dict[str, Any] | None:
    """Return what bench.js needs of a step; None where the row does not say it."""
    exponents = dict.fromkeys(("compute", "stream", "latency"), 0.0) | step.numbers("exponents")
    terms, cores = powers(exponents), measure(step.values.get("threads"), 1)
    operators = [_operator(operator, terms) for operator in step.objects("operators")]
    told = isinstance(step.values.get("exponents"), Mapping)
    if not told or None in operators or not 1 <= cores <= MOST_CORES:
        return None
    host = results.hosts.get(step.machine)
    error, here = step["model_error"], step["predicted_ms"] / step["step_ms"] - 1
    note = "Predicted; how far off the model is, is not known."
    if math.isfinite(error):
        as_it_is = (
            f"; on this step as it is, by {percent(abs(here))}" if math.isfinite(here) else ""
        )
        note = (
            "Predicted. On settings that it was not fitted to, the model is off by "
            f"{percent(error)} in the median{as_it_is}."
        )
    return {
        "label": step.label,
        "first": step is results.headlines[0],
        "batch": step["batch_size"],
        "cores": int(cores),
        "cache": binary(host.caches[-1][1]) if host and host.caches else "",
        "error": f"model's error: {percent(error)}" if math.isfinite(error) else "",
        "note": note,
        "powers": terms,
        "cached": CACHED,
        "operators": operators,
    }


def _operator(row: Row, names: Iterable[str]) -> dict[str, Any] | None:
    """Return what bench.js needs of an operator; None where a term of its time is not known."""
    terms, listed = row.numbers("terms"), row.values.get("cache")
    if not all(name in terms for name in names):
        return None
    pairs = [
        (measure(pair[0]), measure(pair[1]))
        for pair in (listed if isinstance(listed, list) else [])
        if isinstance(pair, list) and len(pair) == 2
    ]
    return {
        "name": row.text("name"),
        "role": role(row.text("name")),
        "terms": terms,
        "cache": sorted(p for p in pairs if p[0] > 0 and math.isfinite(sum(p))) or [(1.0, 1.0)],
        "precision": row.numbers("precision"),
        "rows": row.numbers("rows"),
    }
