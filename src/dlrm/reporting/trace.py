"""The page of `dlrm trace compare`: locality, popularity and drift of a trace and its source."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.planning.facts import facts
from dlrm.reporting.charts.drawing import (
    COLOR,
    Figure,
    Key,
    drawing,
    labels,
    logarithmic,
    shares,
    size,
)
from dlrm.reporting.page import Page
from dlrm.reporting.words import compact
from dlrm.traces.card import LIMITS, Card
from dlrm.traces.measures import Measures, cache_sizes, miss_ratios

ROW_BYTES = 64
"""Bytes of a row of 16 float32, for which the sizes of caches are marked."""
SOURCE, OTHER = ("source", "model"), ("trace", "train")
"""Labels and colours."""
NAMES = {
    "trace": "this trace",
    "uniform": "uniform",
    "zipf": "Zipf-Mandelbrot",
    "heavy-hitters": "heavy hitters and Zipf, as FBGEMM's estimator",
    "lru-stack": "stack distances, as the original's generator",
    "2dio": "2DIO: Zipf and reuse distances",
    "hybrid": "popularity, recency and drift",
}
"""Entry of a card -> its words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """A feature of both traces."""

    source: Measures
    other: Measures
    cards: Mapping[str, Card]
    """`trace`, then baselines by kind"""
    parameters: Mapping[str, Any]
    """Parameters of the model that generated the trace, where they are known"""


def page(source: str, other: str, features: Mapping[str, Compared]) -> Page:
    """Return the page of a comparison of two traces."""
    return Page(
        kind="dlrm trace compare",
        title=f"{other} beside {source}",
        about=", ".join(
            f"{name}: {len(both.source.trace):,} accesses to {len(both.source.trace.counts):,} ids"
            for name, both in features.items()
        ),
        verdict=conclusion(features),
        template="trace.html",
        shown={
            "features": features,
            "charts": {
                name: _figures(at, both) for at, (name, both) in enumerate(features.items())
            },
            "limits": LIMITS,
            "names": NAMES,
            "summary": summary,
        },
    )


def conclusion(features: Mapping[str, Compared]) -> str:
    """Return whether the traces are faithful, in some sentences."""
    failing = {
        name: both.cards["trace"] for name, both in features.items()
        if not both.cards["trace"].faithful
    }  # fmt: skip
    if not failing:
        many = f"All {len(features)} features are" if len(features) > 1 else "The trace is"
        return f"{many} faithful: every measure of the card is within its limit."
    words = "; ".join(f"{name} is {card.verdict}" for name, card in failing.items())
    return f"Not faithful in {len(failing)} of {len(features)} features: {words}."


def _figures(at: int, both: Compared) -> list[Figure]:
    measures = (both.source, both.other)
    keys = [Key(*SOURCE), Key(*OTHER, dashes="5 2.5")]
    most = max(len(one.trace.counts) for one in measures)
    return [
        _miss_ratios(f"misses-{at}", measures, keys, most),
        _popularity(f"popularity-{at}", measures, keys),
        _bars(f"reuse-{at}", "Reuse", [one.reuse for one in measures], _reuse_names,
              "distinct ids since the last access", keys),
        _bars(f"pooling-{at}", "Ids of a sample", [one.pooling for one in measures],
              lambda count: [str(number) for number in range(count)], "ids", keys),
        _drift(f"drift-{at}", measures, keys),
        _unique(f"unique-{at}", measures, keys),
    ]  # fmt: skip


def _lines(ax: Any, points: Sequence[tuple[Any, Any]]) -> None:
    for (x, y), (_, role), dashes in zip(
        points, (SOURCE, OTHER), ("-", (0, (5, 2.5))), strict=True
    ):
        ax.plot(x, y, color=COLOR[role], ls=dashes)


def _miss_ratios(
    name: str, measures: tuple[Measures, Measures], keys: list[Key], most: int
) -> Figure:
    sizes = cache_sizes(most, per_octave=8)
    caches = {cache.level: cache.size_bytes for cache in facts().caches}
    marked = [
        (f"L{level}", rows) for level, total in sorted(caches.items())
        if 1 < (rows := total // ROW_BYTES) < most
    ]  # fmt: skip
    with drawing(name, "Miss ratio") as (figure, ax):
        logarithmic(ax.xaxis)
        _lines(ax, [(sizes, miss_ratios(one.trace.distances, sizes)) for one in measures])
        for text, rows in marked:
            ax.axvline(rows, color=COLOR["muted"], lw=0.8, ls=":")
            ax.annotate(text, (rows, 1.0), (2, -9), textcoords="offset points", fontsize=8.5,
                        color=COLOR["muted"], xycoords=("data", "axes fraction"))  # fmt: skip
        ax.set_ylim(0, 1)
        shares(ax.yaxis)
        labels(ax, "rows of an LRU cache", "misses")
    rows = f"rows of {ROW_BYTES} bytes, or 16 numbers"
    here = ", ".join(f"L{level} {size(total)}" for level, total in sorted(caches.items()))
    note = f"Caches of this machine, {here}, are marked where they hold as many {rows}."
    figure.note, figure.legend = note if marked else "", keys
    return figure


def _popularity(name: str, measures: tuple[Measures, Measures], keys: list[Key]) -> Figure:
    with drawing(name, "Popularity") as (figure, ax):
        logarithmic(ax.xaxis)
        logarithmic(ax.yaxis)
        points = []
        for one in measures:
            counts = np.sort(one.trace.counts)[::-1]
            ranks = cache_sizes(len(counts), per_octave=8)
            points.append((ranks, counts[ranks - 1]))
        _lines(ax, points)
        labels(ax, "rank of the id", "accesses")
    figure.legend = keys
    return figure


def _bars(
    name: str,
    title: str,
    values: Sequence[NDArray[np.float64]],
    names: Any,
    x_label: str,
    keys: list[Key],
) -> Figure:
    most = min(max(int(np.flatnonzero(one).max(initial=0)) for one in values) + 1, 40)
    with drawing(name, title) as (figure, ax):
        for one, (_, role), offset in zip(values, (SOURCE, OTHER), (-0.2, 0.2), strict=True):
            heights = np.pad(one[:most], (0, max(0, most - len(one))))
            ax.bar(np.arange(most) + offset, heights, 0.4, color=COLOR[role], alpha=0.88)
        texts, step = names(most), max(1, -(-most // 8))
        ax.set_xticks(range(0, most, step), texts[::step])
        shares(ax.yaxis)
        labels(ax, x_label, "share")
    figure.legend = [key._replace(mark="square", dashes="") for key in keys]
    return figure


def _reuse_names(count: int) -> list[str]:
    return ["first", "0", "1", *(compact(2**place) for place in range(1, count))][:count]


def _drift(name: str, measures: tuple[Measures, Measures], keys: list[Key]) -> Figure:
    with drawing(name, "Drift") as (figure, ax):
        _lines(ax, [(np.arange(len(one.drift)), one.drift) for one in measures])
        ax.set_ylim(0, 1.02)
        shares(ax.yaxis)
        labels(ax, "distance, in 16ths of the trace", "accesses in common")
    figure.note = "What two parts of the trace share: 100% stays as it is."
    figure.legend = keys
    return figure


def _unique(name: str, measures: tuple[Measures, Measures], keys: list[Key]) -> Figure:
    sizes = [size for size in measures[0].unique if size in measures[1].unique]
    if not sizes:
        return Figure("Unique ids of a batch", "the trace is shorter than a batch")
    with drawing(name, "Unique ids of a batch") as (figure, ax):
        for one, (_, role), offset in zip(measures, (SOURCE, OTHER), (-0.2, 0.2), strict=True):
            heights = [one.unique[size] for size in sizes]
            ax.bar(np.arange(len(sizes)) + offset, heights, 0.4, color=COLOR[role], alpha=0.88)
        logarithmic(ax.yaxis)
        ax.set_xticks(range(len(sizes)), [f"{size:,}" for size in sizes])
        labels(ax, "samples of a batch", "distinct ids")
    figure.note = "Rows that an update writes."
    figure.legend = [key._replace(mark="square", dashes="") for key in keys]
    return figure


def summary(value: Any) -> str:
    """Return a parameter in words: long lists by how long they are."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {summary(part)}" for name, part in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{len(value):,} of them" if len(value) > 6 else ", ".join(map(summary, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
