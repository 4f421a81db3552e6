"""Operators on a page of benchmarks: their time by batch size, their shares, and every figure."""

import math
from collections.abc import Sequence
from itertools import groupby

from dlrm.reporting import charts
from dlrm.reporting.bench_rows import Operator, Step
from dlrm.reporting.charts import Piece
from dlrm.reporting.figures import figure
from dlrm.reporting.markup import Html, element
from dlrm.reporting.tables import fold, table
from dlrm.reporting.words import UNKNOWN, number, percent

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

HEADS = (
    "Operator", "Forward", "Backward", "ms", "Share", "MFLOP", "MB", "Lines", "GFLOP/s", "GB/s",
    "Of roofline", "Bound by", "Model",
)  # fmt: skip


def role(name: str) -> str:
    """Return the colour of an operator."""
    words = name.replace("_", " ").replace("-", " ").split()
    # "dense update" is dense, and "embedding update" an update.
    for word in sorted(ROLES, key=lambda word: word == "update"):
        if word in words:
            return ROLES[word]
    return "muted" if words[:1] == ["other"] else SPARE[sum(map(ord, name)) % len(SPARE)]


def section(steps: Sequence[Step]) -> Html | None:
    """Return where the time of steps goes."""
    if not steps:
        return None
    drawn = [_by_batch(f"batches-{at}", group) for at, group in enumerate(groups(steps))]
    return element(
        "section",
        element("h2", "Where the time goes"),
        element("div", _shares(steps), *filter(None, drawn), class_="grid"),
        *(
            fold(step.label, numbers(step), shown=at == 0)
            for at, step in enumerate(headlines(steps) + _others(steps))
        ),
    )


def groups(steps: Sequence[Step]) -> list[list[Step]]:
    """Return steps that differ in nothing but the batch size."""
    return [
        list(group) for _, group in groupby(steps, key=lambda step: (step.machine, step.setting))
    ]


def headlines(steps: Sequence[Step]) -> list[Step]:
    """Return of each group the step with the largest batch."""
    return [group[-1] for group in groups(steps)]


def legend(steps: Sequence[Step]) -> list[Html]:
    """Return the operators with their colours."""
    names = dict.fromkeys(each.name for step in steps for each in step.operators)
    return [element("li", _swatch(role(name)), name) for name in names]


def _swatch(color: str) -> Html:
    drawing = Html(
        '<svg viewBox="0 0 24 10" aria-hidden="true"><path d="M7 0h10v10H7z" fill="currentColor"/>'
        "</svg>"
    )
    return element("span", drawing, class_="swatch", style=f"color: var(--{color})")


def numbers(step: Step) -> Html:
    """Return every figure of the operators of a step."""
    rows = [
        element(
            "tr",
            element("th", each.name, scope="row"),
            *(element("td", cell, class_="n") for cell in _cells(each)),
            element("td", each.bound),
            element("td", number(each.predicted_ms, 3), class_="n"),
        )
        for each in step.operators
    ]
    rows.append(
        element(
            "tr",
            element("th", "step", scope="row"),
            element("td", ""),
            element("td", ""),
            element("td", number(step.step_ms, 3), class_="n model"),
            *(element("td", "") for _ in range(6)),
            element("td", percent(step.roofline_share), class_="n"),
            element("td", ""),
            element("td", number(step.predicted_ms, 3), class_="n"),
        )
    )
    caption = (
        "Times in ms; FLOP, bytes and cache lines (in thousands) are what has to be done. "
        f"Model: what the cost model says, off by {percent(step.model_error)} in the median."
    )
    heads = [head for head in HEADS if head not in ("Operator", "Bound by")]
    return table(HEADS, rows, numbers=heads, caption=caption)


def _cells(each: Operator) -> list[str]:
    return [
        _or_nothing(each.forward_ms, 3),
        _or_nothing(each.backward_ms, 3),
        number(each.ms, 3),
        percent(each.share),
        _or_nothing(each.flops / 1e6, 1),
        _or_nothing(each.bytes / 1e6, 2),
        _or_nothing(each.lines / 1e3, 1),
        _or_nothing(each.gflops_per_s, 1),
        _or_nothing(each.gb_per_s, 1),
        percent(each.roofline_share or math.nan),
    ]


def _or_nothing(value: float, decimals: int) -> str:
    return number(value, decimals) if value else UNKNOWN


def _others(steps: Sequence[Step]) -> list[Step]:
    first = headlines(steps)
    return [step for step in steps if step not in first]


def _shares(steps: Sequence[Step]) -> Html:
    title = "Share of the step"
    bars = [
        (step.label, [Piece(each.ms, role(each.name)) for each in step.operators if each.ms > 0])
        for step in steps
    ]
    said = "Like Figure 6 of the paper; shares below 7% are in the tables."
    return figure(title, legend(steps), charts.split("shares", title, bars), said)


def _by_batch(name: str, group: Sequence[Step]) -> Html | None:
    if len(group) < 2:
        return None
    title = f"By batch size: {group[0].setting}"
    bars = [(f"{step.batch_size:,.0f}", _passes(step)) for step in group]
    both = any(piece.light for _, pieces in bars for piece in pieces)
    drawn = charts.stacked(
        name, title, bars, x_label="samples a step", y_label="ms for 1,000 samples"
    )
    said = "From bottom to top as in the legend."
    if both:
        said += " The fainter part of an operator is its backward pass."
    return figure(title, legend(group), drawn, said)


def _passes(step: Step) -> list[Piece]:
    pieces = []
    for each in step.operators:
        scale, color = 1e3 / step.batch_size, role(each.name)
        backward = each.backward_ms if each.backward_ms > 0 and each.forward_ms > 0 else 0.0
        pieces += [
            Piece(scale * (each.ms - backward), color),
            Piece(scale * backward, color, light=True),
        ]
    return [piece for piece in pieces if piece.value > 0]
