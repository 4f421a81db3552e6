"""Operators alone, fewer bits and predictions on a page of benchmarks."""

from collections.abc import Sequence
from itertools import groupby
from math import isfinite

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
from dlrm.reporting.words import compact, measure, percent

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


def sweeps(cases: Sequence[Row]) -> list[tuple[str, list[Row], list[str], str]]:
    """Return each operator, its cases, which settings vary, and what the others are."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for case in cases:
        groups.setdefault((case.text("operator"), case.machine), []).append(case)
    swept = []
    for (name, _), group in groups.items():
        known = [key for key in SETTINGS if any(case.text(key) for case in group)]
        varying = [key for key in known if len({case.text(key) for case in group}) > 1]
        same = [f"{key} {group[0].chosen(key)}" for key in known if key not in varying]
        swept.append((name, group, varying, ", ".join(same)))
    return swept


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


def precision(variants: Sequence[Row]) -> list[tuple[Figure, list[Row]]]:
    """Return what fewer bits cost and bring, for each data set and recipe."""

    def place(row: Row) -> tuple[str, ...]:
        return row.machine, row.text("data"), row.text("recipe")

    groups = [list(group) for _, group in groupby(sorted(variants, key=place), key=place)]
    return [(_bits(f"precision-{at}", group), group) for at, group in enumerate(groups)]


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


def accuracy(rows: Sequence[Row]) -> str:
    """Return how far off the cost model is, in a sentence; nothing where no row says it."""
    step = _summary(rows[-1]).get("step") if rows else None
    if step is None or not isfinite(step["median"]):
        return ""
    off = percent(step["median"])
    return f"The cost model is {off} off in the median, on {step.text('steps')} steps."


def predictions(rows: Sequence[Row]) -> tuple[Figure | None, list[tuple[Key, Row]]]:
    """Return predicted beside measured steps of the newest row of the suite `prediction`.

    With each kind of steps and its errors; nothing where the row is damaged.
    """
    if not rows:
        return None, []
    newest, summary = rows[-1], _summary(rows[-1])
    colors = dict(zip(summary, ("model", "train", "test"), strict=False))
    steps = [step for step in newest.objects("steps") if step.text("what") in colors]
    guesses = [(step["predicted_ms"], step["ms"], colors[step.text("what")]) for step in steps]
    guesses = [g for g in guesses if isfinite(g[0] * g[1]) and g[0] > 0 and g[1] > 0]
    if not guesses:
        return None, []
    goal = measure(newest.values.get("goal"), 0.15)
    words = {"step": "steps of other models", "precision": "what-if: the other precision"}
    keys = [
        Key(words.get(what, f"what-if: {what}"), color, "dot") for what, color in colors.items()
    ]
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
    figure.legend = keys
    figure.note = (
        "Each dot is a step of a random model that the cost model was not fitted to; the band is "
        f"±{percent(goal)}. What-if starts from the measured step."
    )
    return figure, list(zip(keys, summary.values(), strict=False))


def _summary(row: Row) -> dict[str, Row]:
    held = row.values.get("summary")
    held = held if isinstance(held, dict) else {}
    return {what: Row(values) for what, values in held.items() if isinstance(values, dict)}
