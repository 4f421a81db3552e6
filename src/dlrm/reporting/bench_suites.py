"""Operators alone, fewer bits and predictions on a page of benchmarks."""

from collections.abc import Sequence
from itertools import groupby
from math import isfinite, nan
from typing import Any

import numpy as np

from dlrm.reporting.bench_rows import Row
from dlrm.reporting.charts.drawing import (
    COLOR,
    HIGH,
    TALL,
    Figure,
    Key,
    callouts,
    diagonal,
    drawing,
    frontier,
    labels,
    logarithmic,
    ticks,
)
from dlrm.reporting.page import Cell, Table
from dlrm.reporting.words import UNKNOWN, compact, measure, number, percent
from dlrm.terminal import human_bytes

SETTINGS = (
    "batch", "tables", "rows", "dim", "pooling", "ids", "precision", "storage", "optim", "widths",
    "threads",
)  # fmt: skip
"""What a sweep of an operator varies."""
NEUTRAL = 2e-4
"""Changes of the AUC that are none."""
KINDS = {
    "reference": ("ink", "reference"),
    "training": ("model", "trained with fewer bits"),
    "post-training": ("train", "rounded after training"),
    "qat": ("test", "trained for fewer bits"),
}
"""Colours of kinds of variants, and what they are called."""


def sweeps(cases: Sequence[Row]) -> list[Table]:
    """Return a table for each operator, of the settings that were tried."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for case in cases:
        groups.setdefault((case.text("operator"), case.machine), []).append(case)
    return [
        _sweep(name, group, shown=at == 0) for at, ((name, _), group) in enumerate(groups.items())
    ]


def _sweep(name: str, cases: Sequence[Row], *, shown: bool) -> Table:
    def text(case: Row, key: str) -> str:
        value = case.values.get(key)
        if isinstance(value, list):
            return "-".join(map(str, value))
        return number(value) if isinstance(value, int) else case.text(key) or UNKNOWN

    known = [key for key in SETTINGS if any(case.values.get(key) is not None for case in cases)]
    varying = [key for key in known if len({str(case.values.get(key)) for case in cases}) > 1]
    same = [f"{key} {text(cases[0], key)}" for key in known if key not in varying]
    figures = [
        "ms", "95% interval", "p95", "Warm ms", "MFLOP", "MB", "GFLOP/s", "GB/s", "Of roofline",
        "Bound by",
    ]  # fmt: skip
    rows: list[list[str | Cell]] = []
    for case in cases:
        low, high = case["ms_low"], case["ms_high"]
        row: list[str | Cell] = [
            number(case["ms"]),
            f"{number(low)} to {number(high)}" if isfinite(low + high) else UNKNOWN,
            number(case["p95_ms"]),
            number(case["warm_ms"]),
            number(case["flops"] / 1e6 or nan, 2),
            number(case["bytes"] / 1e6, 2),
            number(case["gflops_per_s"] or nan, 1),
            number(case["gb_per_s"], 1),
            percent(case["roofline_share"]),
            case.text("bound"),
        ]
        if error := case.text("error"):
            row = [Cell(f"failed: {error}", span=len(figures))]
        rows.append([*(text(case, key) for key in varying), *row])
    failed = sum(bool(case.text("error")) for case in cases)
    summary = f"{name}: {len(cases)} setting{'s' if len(cases) > 1 else ''}"
    summary += f", {failed} of them failed" if failed else ""
    heads = [*(key.capitalize() for key in varying), *figures]
    return Table(heads, rows, heads[:-1], ", ".join(same), summary, shown, named=None)


def smallest(variants: Sequence[Row]) -> str:
    """Return which way to use fewer bits costs nothing on any data that there are."""
    failing = {
        variant.text("variant") for variant in variants if variant.text("verdict") != "neutral"
    }
    working = [variant for variant in variants if variant.text("variant") not in failing]
    least = min(working, key=lambda variant: variant["bytes_per_sample"], default=None)
    if least is None:
        return "No variant with fewer bits is neutral."
    name = least.text("variant")
    changes = sorted(
        variant["auc_change"] for variant in working if variant.text("variant") == name
    )
    between = " to ".join(dict.fromkeys(f"{change:+.5f}" for change in changes))
    return f"{name} is the smallest that is neutral: {between} AUC."


def precision(variants: Sequence[Row]) -> list[Any]:
    """Return what fewer bits cost and bring, for each data set and recipe."""

    def place(row: Row) -> tuple[str, ...]:
        return row.machine, row.text("data"), row.text("recipe")

    parts: list[Any] = []
    for at, (_, group) in enumerate(groupby(sorted(variants, key=place), key=place)):
        alike = list(group)
        parts += [[_bits(f"precision-{at}", alike)], _variants(alike)]
    return parts


def _bits(name: str, variants: Sequence[Row]) -> Figure:
    """Draw the change of the AUC over the bytes of a sample, with its interval."""
    title = f"AUC over bytes: {variants[0].text('recipe')} on {variants[0].text('data')}"
    shown = [
        variant
        for variant in variants
        if not variant.text("error")
        and isfinite(variant["auc_change"])
        and variant["bytes_per_sample"] > 0
    ]
    if not shown:
        return Figure(title, "no variant was measured")
    noise = max((v["noise_auc"] for v in variants if isfinite(v["noise_auc"])), default=0.0)
    sizes = [variant["bytes_per_sample"] for variant in shown]
    roles = [KINDS.get(variant.text("kind"), ("muted", ""))[0] for variant in shown]
    changes = np.array([variant["auc_change"] for variant in shown])
    ends = np.array([[v["auc_change_low"], v["auc_change_high"]] for v in shown]).T
    low, high = np.where(np.isfinite(ends), ends, changes)
    # Those of equal bytes stand beside each other
    xs = [
        x + 0.03 * max(sizes) * (sizes[:at].count(x) - (sizes.count(x) - 1) / 2)
        for at, x in enumerate(sizes)
    ]
    with drawing(name, title, TALL) as (figure, ax):
        if noise:
            ax.axhspan(-noise, noise, color=COLOR["muted"], alpha=0.14, lw=0)
        ax.axhspan(-NEUTRAL, NEUTRAL, color=COLOR["optimum"], alpha=0.22, lw=0)
        ax.axhline(0, color=COLOR["muted"], lw=0.8)
        ax.vlines(xs, low, high, colors=[COLOR[role] for role in roles], lw=1.4, alpha=0.6)
        best = [variant.values.get("pareto") is True for variant in shown]
        frontier(ax, list(zip(xs, changes, roles, strict=True)), best)
        # Changes of either sign; where some are far off, by logarithms beyond the first ones
        straight = 5 * NEUTRAL
        least, most = min(low.min(), changes.min(), -noise), max(high.max(), changes.max(), noise)
        least, most = min(least, -NEUTRAL), max(most, NEUTRAL)
        if max(-least, most) <= 4 * straight:
            ax.set_ylim(least - 0.1 * (most - least), most + 0.25 * (most - least))
            ticks(ax.yaxis, most=7)
        else:
            ax.set_yscale("symlog", linthresh=straight)
            steps = [straight * 10**power for power in range(6)]
            ax.set_yticks([*(-step for step in reversed(steps)), 0.0, *steps])
            ax.set_ylim(1.6 * min(least, -straight), 8 * max(most, straight))
            ax.minorticks_off()
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
        ax.set_xlim(0, 1.12 * max(sizes))
        ticks(ax.xaxis, compact)
        tops = list(zip(xs, np.maximum(high, changes), strict=True))
        callouts(ax, tops, [str(at) for at in range(1, len(shown) + 1)], height=0.96)
        labels(ax, "bytes of table rows read for a sample", "change of the AUC")
    kinds = [
        Key(words, color, "diamond" if color == "test" else "dot")
        for color, words in KINDS.values()
        if color in roles
    ]
    numbered = enumerate(zip(shown, roles, strict=True), start=1)
    figure.legend = [*kinds, *(Key(v.text("variant"), role, str(at)) for at, (v, role) in numbered)]
    figure.note = (
        "Bars: 95% intervals; up and left is better. The narrow band is "
        f"±{NEUTRAL:g}: a variant is neutral if its interval lies inside. Those of equal "
        "bytes stand beside each other."
    )
    if noise:
        figure.note += f" The wide band is one standard deviation of seeds, ±{noise:.5f}."
    return figure


def _variants(variants: Sequence[Row]) -> Table:
    def signed(value: float) -> str:
        return f"{value:+.5f}" if isfinite(value) else UNKNOWN

    heads = [
        "Variant", "AUC", "Change of AUC", "NE", "Log loss", "Calibration", "Bytes a sample",
        "Tables", "Samples/s", "Speed", "Verdict",
    ]  # fmt: skip
    rows: list[list[str | Cell]] = []
    for variant in variants:
        name = Cell(variant.text("variant"), variant.text("kind"))
        if error := variant.text("error"):
            rows.append([name, Cell(f"failed: {error}", span=len(heads) - 1)])
            continue
        low, high = variant["auc_change_low"], variant["auc_change_high"]
        between = f"{low:+.5f} to {high:+.5f}" if isfinite(low + high) else ""
        tables, speed = variant["tables_bytes"], variant["speedup"]
        rows.append(
            [
                name,
                number(variant["auc_mean"]),
                Cell(signed(variant["auc_change"]), between),
                *(
                    signed(variant[f"{metric}_change"])
                    for metric in ("normalized_entropy", "log_loss", "calibration")
                ),
                number(variant["bytes_per_sample"], 0),
                human_bytes(tables) if isfinite(tables) else UNKNOWN,
                number(variant["samples_per_s"], 0),
                f"{speed:.2f}×" if isfinite(speed) else UNKNOWN,
                variant.text("verdict"),
            ]
        )
    seeds = variants[0].values.get("seeds")
    count = len(seeds) if isinstance(seeds, list) else 0
    caption = f"Changes from the reference, with 95% intervals over {count} seeds"
    return Table(heads, rows, heads[1:-1], caption)


def accuracy(rows: Sequence[Row]) -> str:
    """Return how far off the cost model is, in a sentence; nothing where no row says it."""
    step = _summary(rows[-1]).get("step") if rows else None
    if step is None or not isfinite(step["median"]):
        return ""
    off = percent(step["median"])
    return f"The cost model is {off} off in the median, on {step.text('steps')} steps."


def predictions(rows: Sequence[Row]) -> list[Any]:
    """Return what the newest row of the suite `prediction` says; nothing where it is damaged."""
    if not rows:
        return []
    newest, summary = rows[-1], _summary(rows[-1])
    colors = dict(zip(summary, ("model", "train", "test"), strict=False))
    steps = [step for step in newest.each("steps") if step.text("what") in colors]
    guesses = [(step["predicted_ms"], step["ms"], colors[step.text("what")]) for step in steps]
    guesses = [g for g in guesses if isfinite(g[0] * g[1]) and g[0] > 0 and g[1] > 0]
    if not guesses:
        return []
    goal = measure(newest.values.get("goal"), 0.15)
    words = {"step": "steps of other models", "precision": "what-if: the other precision"}
    names = {what: words.get(what, f"what-if: {what}") for what in summary}
    ends = [end for *both, _ in guesses for end in both]
    line = np.array([min(ends) / 1.5, max(ends) * 1.5])
    title = "Predicted beside measured"
    with drawing("predictions", title, HIGH, grid="both") as (figure, ax):
        ax.fill_between(
            line, line * (1 - goal), line * (1 + goal), color=COLOR["optimum"], alpha=0.18, lw=0
        )
        diagonal(ax, *line)
        for predicted, measured, role in guesses:
            ax.plot([measured], [predicted], "o", color=COLOR[role], ms=4.2, alpha=0.75, mew=0)
        logarithmic(ax.xaxis)
        logarithmic(ax.yaxis)
        ax.set_xlim(*line)
        ax.set_ylim(*line)
        labels(ax, "measured, ms", "predicted, ms")
    figure.legend = [Key(names[what], color, "dot") for what, color in colors.items()]
    figure.note = (
        "Each dot is a step of a random model that the cost model was not fitted to; the band is "
        f"±{percent(goal)}. What-if starts from the measured step."
    )
    heads = ("What", "Steps", "Median error", "Nine of ten below")
    listed = [
        [names[what], row.text("steps"), percent(row["median"]), percent(row["ninth"])]
        for what, row in summary.items()
    ]
    return [[figure], Table(heads, listed, heads[1:])]


def _summary(row: Row) -> dict[str, Row]:
    held = row.values.get("summary")
    held = held if isinstance(held, dict) else {}
    return {what: Row(values) for what, values in held.items() if isinstance(values, dict)}
