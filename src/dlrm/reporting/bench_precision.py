"""Numerics on a page of benchmarks: accuracy against bytes, and every figure."""

from collections.abc import Sequence
from itertools import groupby
from math import isfinite

from dlrm.reporting import charts
from dlrm.reporting.bench_rows import Variant
from dlrm.reporting.charts import Bits
from dlrm.reporting.figures import absent, figure, key, numbered
from dlrm.reporting.markup import Html, element
from dlrm.reporting.tables import table
from dlrm.reporting.words import UNKNOWN, number
from dlrm.terminal import human_bytes

NEUTRAL = 2e-4
"""Changes of the AUC that are none."""
KINDS = {
    "reference": "ink",
    "training": "model",
    "post-training": "train",
    "qat": "test",
}
"""Colours."""
WORDS = {
    "reference": "reference",
    "training": "trained with fewer bits",
    "post-training": "rounded after training",
    "qat": "trained for fewer bits",
}
HEADS = (
    "Variant", "AUC", "Change of AUC", "NE", "Log loss", "Calibration", "Bytes a sample", "Tables",
    "Samples/s", "Speed", "Verdict",
)  # fmt: skip


def section(variants: Sequence[Variant]) -> Html | None:
    """Return what fewer bits cost and bring, for each data set and recipe."""
    if not variants:
        return None
    order = sorted(variants, key=lambda each: (each.machine, each.data, each.recipe))
    parts: list[Html] = []
    for at, (_, group) in enumerate(
        groupby(order, key=lambda each: (each.machine, each.data, each.recipe))
    ):
        of = list(group)
        parts += [element("div", _figure(f"precision-{at}", of), class_="grid"), _table(of)]
    return element("section", element("h2", "What fewer bits cost"), *parts)


def _figure(name: str, variants: Sequence[Variant]) -> Html:
    title = f"AUC over bytes: {variants[0].recipe} on {variants[0].data}"
    shown = [
        each
        for each in variants
        if not each.error and isfinite(each.auc_change) and each.bytes_per_sample > 0
    ]
    dots = [
        Bits(
            str(at),
            each.bytes_per_sample,
            each.auc_change,
            each.auc_change_low if isfinite(each.auc_change_low) else each.auc_change,
            each.auc_change_high if isfinite(each.auc_change_high) else each.auc_change,
            KINDS.get(each.kind, "muted"),
            each.row.get("pareto") is True,
        )
        for at, each in enumerate(shown, start=1)
    ]
    if not dots:
        return absent(title, "no variant was measured")
    noise = max((each.noise_auc for each in variants if isfinite(each.noise_auc)), default=0.0)
    drawn = charts.precision(name, title, dots, neutral=NEUTRAL, noise=noise or None)
    used = {each.kind for each in shown}
    keys = [key(WORDS[kind], KINDS[kind], dot=True) for kind in KINDS if kind in used]
    keys += [
        numbered(dot.label, each.variant, dot.role) for dot, each in zip(dots, shown, strict=True)
    ]
    said = (
        "Bars: 95% intervals; up and left is better. The narrow band is "
        f"±{NEUTRAL:g}: a variant is neutral if its interval lies inside. Those of equal "
        "bytes stand beside each other."
    )
    if noise:
        said += f" The wide band is one standard deviation of seeds, ±{noise:.5f}."
    return figure(title, keys, drawn, said)


def _table(variants: Sequence[Variant]) -> Html:
    rows = []
    for each in variants:
        name = element("th", each.variant, element("small", each.kind), scope="row")
        if each.error:
            failed = element("td", f"failed: {each.error}", colspan=len(HEADS) - 1)
            rows.append(element("tr", name, failed))
            continue
        cells = (
            number(each.auc_mean),
            _change(each),
            _signed(each.normalized_entropy_change),
            _signed(each.log_loss_change),
            _signed(each.calibration_change),
            number(each.bytes_per_sample, 0),
            human_bytes(each.tables_bytes) if isfinite(each.tables_bytes) else UNKNOWN,
            number(each.samples_per_s, 0),
            f"{each.speedup:.2f}×" if isfinite(each.speedup) else UNKNOWN,
        )
        figures = [element("td", cell, class_="n") for cell in cells]
        rows.append(element("tr", name, *figures, element("td", each.verdict)))
    seeds = variants[0].row.get("seeds")
    count = len(seeds) if isinstance(seeds, list) else 0
    caption = f"Changes from the reference, with 95% intervals over {count} seeds"
    return table(HEADS, rows, numbers=HEADS[1:-1], caption=caption)


def _change(each: Variant) -> Html:
    low, high = each.auc_change_low, each.auc_change_high
    between = f"{low:+.5f} to {high:+.5f}" if isfinite(low + high) else None
    small = element("small", between) if between else ""
    return element("span", _signed(each.auc_change), small)


def _signed(value: float) -> str:
    return f"{value:+.5f}" if isfinite(value) else UNKNOWN
