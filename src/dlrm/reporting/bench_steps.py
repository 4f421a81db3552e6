"""Steps on a page of benchmarks: what bounds them, where their time goes, what would change it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dlrm.planning.what_if import CACHED, powers
from dlrm.reporting.bench_rows import Results, Row, Step, binary
from dlrm.reporting.charts.bars import Piece, shares_of, stacks
from dlrm.reporting.page import Cell, Figure, Grid, Key, Table
from dlrm.reporting.words import UNKNOWN, measure, number, percent

ROLES = {
    "lookup": "train",
    "update": "baseline",
    "bottom": "model",
    "interaction": "test",
    "top": "teal",
    "loss": "olive",
    "dense": "optimum",
}
"""Colours of operators, by a word of their name."""
SPARE = ("model", "optimum", "olive", "teal")
NAMED, CHANGES = 2, 5
"""Changes that the verdict names, and that are shown in all."""

TERMS = ("calls_ms", "compute_ms", "stream_ms", "latency_ms", "transfer_ms")
"""What the time of an operator is made of."""
CORES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
MOST_CORES = 100_000
"""Cores that a row may be of."""
FACTORS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
"""Sliders of arithmetic and of memory bandwidth; of latency up to 4."""

HEADS = (
    "Operator", "Forward", "Backward", "ms", "Share", "MFLOP", "MB", "Lines", "GFLOP/s", "GB/s",
    "Of roofline", "Bound by", "Model",
)  # fmt: skip


class Verdicts(NamedTuple):
    """A card for each step."""

    steps: Sequence[Step]
    also: Sequence[str]
    """Changes of each step that its verdict does not name."""
    published: Sequence[str]
    """Figures of each step that others measured."""


class WhatIf(NamedTuple):
    """Sliders over the fitted model of some steps; bench.js moves what they say."""

    steps: Sequence[tuple[int, str, bool]]
    """Steps to choose from: number, name, and whether it is the first one shown."""
    sliders: Sequence[tuple[str, str, Sequence[str]]]
    """Name, label and values of each."""
    choices: Sequence[tuple[str, str, Sequence[tuple[str, str, bool]]]]
    """Name, label and options of each."""
    table: Table
    """The head of the table of operators, whose rows bench.js writes."""
    values: Sequence[Mapping[str, Any]]
    """What the formula needs of each step."""


def role(name: str) -> str:
    """Return the colour of an operator."""
    words = name.replace("_", " ").replace("-", " ").split()
    # "dense update" is dense, and "embedding update" an update
    for word in sorted(ROLES, key=lambda word: word == "update"):
        if word in words:
            return ROLES[word]
    return "muted" if words[:1] == ["other"] else SPARE[sum(map(ord, name)) % len(SPARE)]


def verdicts(results: Results) -> list[Verdicts]:
    """Return what bounds each step, and what would help."""
    steps = results.steps
    return [Verdicts(steps, [*map(_also, steps)], [*map(_published, steps)])] if steps else []


def _also(step: Step) -> str:
    changes = [change for change in step.each("changes") if math.isfinite(change["gain"])]
    return ", ".join(
        f"{change['gain']:.2f}x by {change.text('what')}"
        + (f" ({how})" if (how := change.text("how")) not in ("", "hardware") else "")
        for change in changes[NAMED:CHANGES]
    )


def doubts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is doubtful in rows that have no card of their own."""
    others = [Row(row) for row in rows if row.get("suite") not in ("train", "infer")]
    warnings = dict.fromkeys(f"{r.text('suite')}: {r.doubts}" for r in others if r.doubts)
    return [f"Doubtful: {'; '.join(warnings)}."] if warnings else []


def _published(step: Step) -> str:
    """Return what all samples of a published figure would take here, and took there."""
    samples, ours_s = step["published_samples"], step["published_ours_s"]
    if not math.isfinite(samples + ours_s):
        return ""
    published = ", ".join(
        f"{measure(value):g} s on a {name.removeprefix('published_').removesuffix('_s')}"
        for name, value in step.values.items()
        if name.startswith("published_") and name.endswith("_s") and name != "published_ours_s"
    )
    here = f"{samples:,.0f} samples would take {ours_s:.0f} s here"
    return f"{here}; published: {published}." if published else f"{here}."


def operators(results: Results) -> list[Any]:
    """Return where the time of steps goes."""
    if not results.steps:
        return []
    figures = [_shares(results.steps)]
    figures += [
        _by_batch(f"batches-{at}", group)
        for at, group in enumerate(results.groups)
        if len(group) > 1
    ]
    first = results.headlines
    order = [*first, *(step for step in results.steps if step not in first)]
    return [Grid(figures), *(_numbers(step, shown=at == 0) for at, step in enumerate(order))]


def _legend(steps: Sequence[Step]) -> list[Key]:
    names = dict.fromkeys(operator.text("name") for step in steps for operator in step.operators)
    return [Key(name, role(name), "square") for name in names]


def _shares(steps: Sequence[Step]) -> Figure:
    bars = [
        (step.label, [Piece(o["ms"], role(o.text("name"))) for o in step.operators if o["ms"] > 0])
        for step in steps
    ]
    note = "Like Figure 6 of the paper; shares below 7% are in the tables."
    return Figure("Share of the step", shares_of("shares", bars), note, _legend(steps))


def _by_batch(name: str, group: Sequence[Step]) -> Figure:
    bars, texts = [passes(step) for step in group], [f"{s['batch_size']:,.0f}" for s in group]
    per = "ms for 1,000 samples"
    drawing = stacks(name, bars, x_label="samples a step", y_label=per, texts=texts)
    note = "From bottom to top as in the legend."
    if any(piece.light for pieces in bars for piece in pieces):
        note += " The fainter part of an operator is its backward pass."
    title = f"By batch size: {group[0].setting}"
    return Figure(title, drawing, note, _legend(group))


def passes(step: Step) -> list[Piece]:
    """Return forward and backward pass of each operator, in ms for 1,000 samples."""
    pieces = []
    for operator in step.operators:
        scale, color = 1e3 / step["batch_size"], role(operator.text("name"))
        both = operator["backward_ms"] > 0 and operator["forward_ms"] > 0
        backward = operator["backward_ms"] if both else 0.0
        pieces.append(Piece(scale * (operator["ms"] - backward), color))
        pieces.append(Piece(scale * backward, color, light=True))
    return [piece for piece in pieces if piece.value > 0]


def _numbers(step: Step, *, shown: bool) -> Table:
    """Return every figure of the operators of a step."""

    def known(value: float, decimals: int) -> str:
        return number(value, decimals) if value else UNKNOWN

    rows: list[list[str | Cell]] = [
        [
            operator.text("name"),
            known(operator["forward_ms"], 3),
            known(operator["backward_ms"], 3),
            number(operator["ms"], 3),
            percent(operator["share"]),
            known(operator["flops"] / 1e6, 1),
            known(operator["bytes"] / 1e6, 2),
            known(operator["lines"] / 1e3, 1),
            known(operator["gflops_per_s"], 1),
            known(operator["gb_per_s"], 1),
            percent(operator["roofline_share"] or math.nan),
            operator.text("bound"),
            number(operator["predicted_ms"], 3),
        ]
        for operator in step.operators
    ]
    whole, share = Cell(number(step["step_ms"], 3), strong=True), percent(step["roofline_share"])
    model = number(step["predicted_ms"], 3)
    rows.append(["step", "", "", whole, "", "", "", "", "", "", share, "", model])
    caption = (
        "Times in ms; FLOP, bytes and cache lines (in thousands) are what has to be done. "
        f"Model: what the cost model says, off by {percent(step['model_error'])} in the median."
    )
    numbers = [head for head in HEADS if head not in ("Operator", "Bound by")]
    return Table(HEADS, rows, numbers, caption, step.label, shown)


def what_if(results: Results) -> list[WhatIf]:
    """Return the sliders, where a row says what they need."""
    formulas = [(step, values) for step in results.steps if (values := _formula(step, results))]
    if not formulas:
        return []
    every = [operator for _, values in formulas for operator in values["operators"]]
    cores = sorted({*CORES, *(values["cores"] for _, values in formulas)})
    caches = sorted({1.0, *(float(factor) for entry in every for factor, _ in entry["cache"])})
    first = results.headlines[0]
    sliders = (
        ("cores", "Cores", cores),
        ("flops", "Arithmetic of a core", FACTORS),
        ("bandwidth", "Memory bandwidth", FACTORS),
        ("latency", "Memory latency", FACTORS[:9]),
        *((("cache", "Last-level cache", caches),) if len(caches) > 1 else ()),
    )
    choices = []
    for name, label in (("precision", "Products of the MLPs"), ("rows", "Rows of the tables")):
        kinds = dict.fromkeys(kind for entry in every for kind in entry[name])
        options = [(kind, kind or "as measured", False) for kind in ("", *kinds)]
        choices.append((name, label, options if kinds else ()))
    heads = ["Operator", "Measured, ms", "Predicted, ms", "Times as fast"]
    return [
        WhatIf(
            [(at, step.label, step is first) for at, (step, _) in enumerate(formulas)],
            [(name, label, [f"{value:g}" for value in values]) for name, label, values in sliders],
            choices,
            Table(heads, [], heads[1:]),
            [values for _, values in formulas],
        )
    ]


def _formula(step: Step, results: Results) -> dict[str, Any] | None:
    """Return what bench.js needs of a step; None where the row does not say it."""
    exponents = step.values.get("exponents")
    operators = [_operator(operator) for operator in step.operators]
    cores = measure(step.values.get("threads"), 1)
    if not isinstance(exponents, Mapping) or None in operators or not 1 <= cores <= MOST_CORES:
        return None
    host = results.host(step.machine)
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
        "batch": step["batch_size"],
        "cores": int(cores),
        "cache": binary(host.caches[-1][1]) if host and host.caches else "",
        "error": f"model's error: {percent(error)}" if math.isfinite(error) else "",
        "note": note,
        "powers": powers(
            {name: measure(exponents.get(name), 0) for name in ("compute", "stream", "latency")}
        ),
        "cached": CACHED,
        "operators": operators,
    }


def _operator(row: Row) -> dict[str, Any] | None:
    terms = row.values.get("terms")
    values = (
        {name: measure(terms.get(name)) for name in TERMS} if isinstance(terms, Mapping) else {}
    )
    if not values or not all(map(math.isfinite, values.values())):
        return None
    listed = row.values.get("cache")
    pairs = [
        [measure(pair[0]), measure(pair[1])]
        for pair in (listed if isinstance(listed, list) else [])
        if isinstance(pair, list) and len(pair) == 2
    ]
    pairs = sorted(pair for pair in pairs if pair[0] > 0 and math.isfinite(sum(pair)))

    def multipliers(name: str) -> dict[str, float]:
        held = row.values.get(name)
        held = held if isinstance(held, Mapping) else {}
        known = {str(kind): measure(times) for kind, times in held.items()}
        return {kind: times for kind, times in known.items() if math.isfinite(times)}

    return {
        "name": row.text("name"),
        "role": role(row.text("name")),
        "terms": values,
        "cache": pairs or [[1.0, 1.0]],
        "precision": multipliers("precision"),
        "rows": multipliers("rows"),
    }
