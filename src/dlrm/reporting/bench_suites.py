"""Operators alone, fewer bits and predictions on a page of benchmarks."""

from collections.abc import Sequence
from itertools import groupby
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from dlrm.reporting.bench_rows import Row
from dlrm.reporting.charts.drawing import (
    COLOR,
    HIGH,
    TALL,
    callouts,
    diagonal,
    drawing,
    frontier,
    labels,
    logarithmic,
    ticks,
)
from dlrm.reporting.page import Cell, Figure, Grid, Key, Table
from dlrm.reporting.words import UNKNOWN, compact, measure, number, percent
from dlrm.terminal import human_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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

    varying = [key for key in SETTINGS if len({str(case.values.get(key)) for case in cases}) > 1]
    same = [
        f"{key} {text(cases[0], key)}"
        for key in SETTINGS
        if key not in varying and cases[0].values.get(key) is not None
    ]
    figures = [
        "ms", "95% interval", "p95", "Warm ms", "MFLOP", "MB", "GFLOP/s", "GB/s", "Of roofline",
    ]  # fmt: skip
    heads = [*(key.capitalize() for key in varying), *figures, "Bound by"]
    rows: list[list[str | Cell]] = []
    for case in cases:
        row: list[str | Cell] = [text(case, key) for key in varying]
        if case.text("error"):
            row.append(Cell(f"failed: {case.text('error')}", span=len(figures) + 1))
        else:
            known = isfinite(case["ms_low"] + case["ms_high"])
            row += [
                number(case["ms"]),
                f"{number(case['ms_low'])} to {number(case['ms_high'])}" if known else UNKNOWN,
                number(case["p95_ms"]),
                number(case["warm_ms"]),
                number(case["flops"] / 1e6 or nan, 2),
                number(case["bytes"] / 1e6, 2),
                number(case["gflops_per_s"] or nan, 1),
                number(case["gb_per_s"], 1),
                percent(case["roofline_share"]),
                case.text("bound"),
            ]
        rows.append(row)
    failed = sum(bool(case.text("error")) for case in cases)
    summary = f"{name}: {len(cases)} setting{'s' if len(cases) > 1 else ''}"
    summary += f", {failed} of them failed" if failed else ""
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
        parts += [Grid([_bits(f"precision-{at}", alike)]), _variants(alike)]
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
        return Figure(title, "", "no variant was measured")
    noise = max(
        (variant["noise_auc"] for variant in variants if isfinite(variant["noise_auc"])),
        default=0.0,
    )
    sizes = [variant["bytes_per_sample"] for variant in shown]
    roles = [KINDS.get(variant.text("kind"), ("muted", ""))[0] for variant in shown]
    changes = [variant["auc_change"] for variant in shown]
    low, high = (
        [
            end if isfinite(end := variant[f"auc_change_{side}"]) else variant["auc_change"]
            for variant in shown
        ]
        for side in ("low", "high")
    )
    # Those of equal bytes stand beside each other
    xs = [
        x + 0.03 * max(sizes) * (sizes[:at].count(x) - (sizes.count(x) - 1) / 2)
        for at, x in enumerate(sizes)
    ]
    with drawing(name, TALL) as drawn:
        ax = drawn.axes[0]
        if noise:
            ax.axhspan(-noise, noise, color=COLOR["muted"], alpha=0.14, lw=0)
        ax.axhspan(-NEUTRAL, NEUTRAL, color=COLOR["optimum"], alpha=0.22, lw=0)
        ax.axhline(0, color=COLOR["muted"], lw=0.8)
        colors = [COLOR[role] for role in roles]
        ax.vlines(xs, low, high, colors=colors, lw=1.4, alpha=0.6)
        best = [variant.values.get("pareto") is True for variant in shown]
        frontier(ax, list(zip(xs, changes, roles, strict=True)), best)
        ends = [*low, *high, *changes]
        _symmetric(ax, min([*ends, -NEUTRAL, -noise]), max([*ends, NEUTRAL, noise]), 5 * NEUTRAL)
        ax.set_xlim(0, 1.12 * max(sizes))
        ticks(ax.xaxis, compact)
        tops = list(zip(xs, map(max, high, changes), strict=True))
        callouts(ax, tops, [str(at) for at in range(1, len(shown) + 1)], height=0.96)
        labels(ax, "bytes of table rows read for a sample", "change of the AUC")
    keys = [
        Key(words, color, "diamond" if color == "test" else "dot")
        for color, words in KINDS.values()
        if color in roles
    ]
    for at, (variant, color) in enumerate(zip(shown, roles, strict=True), start=1):
        keys.append(Key(variant.text("variant"), color, str(at)))
    note = (
        "Bars: 95% intervals; up and left is better. The narrow band is "
        f"±{NEUTRAL:g}: a variant is neutral if its interval lies inside. Those of equal "
        "bytes stand beside each other."
    )
    if noise:
        note += f" The wide band is one standard deviation of seeds, ±{noise:.5f}."
    return Figure(title, drawn.svg, note, keys)


def _symmetric(ax: "Axes", low: float, high: float, straight: float) -> None:
    """Show changes of either sign; where some are far off, by logarithms beyond so much."""
    if max(-low, high) <= 4 * straight:
        pad = 0.1 * (high - low)
        ax.set_ylim(low - pad, high + 2.5 * pad)
        ticks(ax.yaxis, most=7)
        return
    ax.set_yscale("symlog", linthresh=straight)
    steps = [straight * 10**power for power in range(6)]
    ax.set_yticks([*(-s for s in reversed(steps)), 0.0, *steps])
    ax.set_ylim(1.6 * min(low, -straight), 8 * max(high, straight))
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")


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
        if variant.text("error"):
            rows.append([name, Cell(f"failed: {variant.text('error')}", span=len(heads) - 1)])
            continue
        low, high = variant["auc_change_low"], variant["auc_change_high"]
        between = f"{low:+.5f} to {high:+.5f}" if isfinite(low + high) else ""
        tables, speed = variant["tables_bytes"], variant["speedup"]
        rows.append(
            [
                name,
                number(variant["auc_mean"]),
                Cell(signed(variant["auc_change"]), between),
                signed(variant["normalized_entropy_change"]),
                signed(variant["log_loss_change"]),
                signed(variant["calibration_change"]),
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
    guesses = [
        (row["predicted_ms"], row["ms"], colors[row.text("what")])
        for row in newest.each("steps")
        if row.text("what") in colors
    ]
    guesses = [g for g in guesses if isfinite(g[0] * g[1]) and g[0] > 0 and g[1] > 0]
    if not guesses:
        return []
    goal = measure(newest.values.get("goal"), 0.15)
    note = (
        "Each dot is a step of a random model that the cost model was not fitted to; the band is "
        f"±{percent(goal)}. What-if starts from the measured step."
    )
    words = {"step": "steps of other models", "precision": "what-if: the other precision"}
    names = {what: words.get(what, f"what-if: {what}") for what in summary}
    keys = [Key(names[what], color, "dot") for what, color in colors.items()]
    heads = ("What", "Steps", "Median error", "Nine of ten below")
    listed = [
        [names[what], row.text("steps"), percent(row["median"]), percent(row["ninth"])]
        for what, row in summary.items()
    ]
    ends = [end for *both, _ in guesses for end in both]
    line = [min(ends) / 1.5, max(ends) * 1.5]
    with drawing("predictions", HIGH, grid="both") as drawn:
        ax = drawn.axes[0]
        below, above = ([end * (1 + off) for end in line] for off in (-goal, goal))
        ax.fill_between(line, below, above, color=COLOR["optimum"], alpha=0.18, lw=0)
        diagonal(ax, *line)
        for predicted, measured, role in guesses:
            ax.plot([measured], [predicted], "o", color=COLOR[role], ms=4.2, alpha=0.75, mew=0)
        logarithmic(ax.xaxis)
        logarithmic(ax.yaxis)
        ax.set_xlim(*line)
        ax.set_ylim(*line)
        labels(ax, "measured, ms", "predicted, ms")
    figure = Figure("Predicted beside measured", drawn.svg, note, keys)
    return [Grid([figure]), Table(heads, listed, heads[1:])]


def _summary(row: Row) -> dict[str, Row]:
    held = row.values.get("summary")
    held = held if isinstance(held, dict) else {}
    return {what: Row(values) for what, values in held.items() if isinstance(values, dict)}
