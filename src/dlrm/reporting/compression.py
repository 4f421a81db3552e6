"""The page of a sweep over smaller tables: what memory costs in log loss."""

from dlrm.reporting.charts.drawing import (
    HIGH,
    Figure,
    Key,
    drawing,
    frontier,
    labels,
    logarithmic,
    size,
    ticks,
)
from dlrm.reporting.page import Page
from dlrm.reporting.words import in_sentence
from dlrm.terminal import human_bytes
from dlrm.training.compression import METHODS, TOLERANCE, Candidate, Sweep

ROLES = {"qr": "train", "mixed_dim": "test", "hash": "baseline"}
"""Colours of what was trained; what was not has the model's."""
KINDS = {
    "model": "the run, and with fewer bits",
    "train": "quotient-remainder",
    "test": "mixed dimensions",
    "baseline": "hashed",
}


def conclusion(sweep: Sweep) -> str:
    """Return what came out, in a sentence or two."""
    base, choice, metric = sweep.base, sweep.choice, in_sentence(sweep.metric)
    within = f"within {TOLERANCE:.1%} of the run's {metric}"
    if choice.name == base.name:
        return f"No smaller tables are {within}: keep {base.name}."
    return (
        f"{choice.name} is the smallest {within}: {human_bytes(choice.size_bytes)} instead of "
        f"{human_bytes(base.size_bytes)}, {base.size_bytes / choice.size_bytes:.1f} times less, at "
        f"{sweep.change(choice):+.5f} {metric}."
    )


def page(sweep: Sweep, title: str, about: str) -> Page:
    """Return the page of a sweep; `about` says in a line on what it was measured."""
    return Page(
        kind="dlrm compression",
        title=title,
        about=about,
        verdict=conclusion(sweep),
        template="compression.html",
        shown={
            "sweep": sweep,
            "metric": in_sentence(sweep.metric),
            "chart": _chart(sweep),
            "skipped": [f"{name}: {why}" for name, why in sweep.skipped.items()],
        },
    )


def _chart(sweep: Sweep) -> Figure:
    """Draw errors over sizes, smaller is better in both, with names on the best of each size."""
    best = [candidate in sweep.frontier for candidate in sweep.candidates]
    metric = in_sentence(sweep.metric)
    dots = [(c.size_bytes, sweep.error(c), _role(c)) for c in sweep.candidates]
    sizes = [candidate.size_bytes for candidate in sweep.candidates]
    title = f"{metric[0].upper()}{metric[1:]} over the bytes of the tables, down and left is better"
    with drawing("frontier", title, HIGH, grid="both") as (figure, ax):
        frontier(ax, dots, best)
        for candidate in sweep.frontier:
            at = candidate.size_bytes, sweep.error(candidate)
            ax.annotate(candidate.name, at, (5, 5), textcoords="offset points", size=8.5)
        left, right = min(sizes) / 1.3, max(sizes) * 1.8
        steps = (1,) if right / left > 700 else (1, 3) if right / left > 70 else (1, 2, 5)
        places = [s * 10.0**p for p in range(13) for s in steps if left <= s * 10.0**p <= right]
        logarithmic(ax.xaxis, size, places or [left])
        ax.set_xlim(left, right)
        ax.margins(y=0.12)
        ticks(ax.yaxis, most=6)
        labels(ax, "bytes of the tables", metric)
    used = {role for *_, role in dots}
    figure.legend = [Key(words, role, "dot") for role, words in KINDS.items() if role in used]
    figure.note = "The line joins those that no other beats in both; they are named."
    if any(candidate.method in METHODS for candidate in sweep.candidates[1:]):
        figure.note += " Trained ones also differ by the luck of one seed."
    return figure


def _role(candidate: Candidate) -> str:
    return ROLES.get(candidate.method, "model") if candidate.run else "model"
