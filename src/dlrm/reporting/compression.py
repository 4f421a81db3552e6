"""The page of a sweep over smaller tables: what memory costs in log loss."""

from pathlib import Path

from dlrm.reporting import charts
from dlrm.reporting.page import Figure, Grid, Key, Lines, Page, Section, Table, save
from dlrm.reporting.words import UNKNOWN, number
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
METRICS = {"log_loss": "log loss", "rmse": "RMSE"}
"""What tables are judged by, in words."""


def conclusion(sweep: Sweep) -> str:
    """Return what came out, in a sentence or two."""
    base, choice, metric = sweep.base, sweep.choice, METRICS[sweep.metric]
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
    skipped = [f"{name}: {why}" for name, why in sweep.skipped.items()]
    return Page(
        kind="dlrm compression",
        title=title,
        about=about,
        verdict=conclusion(sweep),
        sections=[
            Section(f"Memory against {METRICS[sweep.metric]}", [Grid([_chart(sweep)])]),
            Section(
                "In numbers", [_numbers(sweep), *([Lines("Not tried", skipped)] if skipped else [])]
            ),
        ],
    )


def write(folder: Path, sweep: Sweep, about: str) -> Path:
    """Write compress.html into a run directory and return where it is."""
    return save(page(sweep, folder.name, about), folder / "compress.html")


def _chart(sweep: Sweep) -> Figure:
    best = {candidate.name for candidate in sweep.frontier}
    dots = [
        charts.Dot(c.name, c.size_bytes, sweep.error(c), _role(c), c.name in best)
        for c in sweep.candidates
    ]
    metric = METRICS[sweep.metric]
    used = {dot.role for dot in dots}
    text = "The line joins those that no other beats in both; they are named."
    if any(candidate.method in METHODS for candidate in sweep.candidates[1:]):
        text += " Trained ones also differ by the luck of one seed."
    return Figure(
        f"{metric[0].upper()}{metric[1:]} over the bytes of the tables, down and left is better",
        charts.frontier("frontier", dots, y_label=metric),
        text,
        [Key(words, role, "dot") for role, words in KINDS.items() if role in used],
    )


def _role(candidate: Candidate) -> str:
    return ROLES.get(candidate.method, "model") if candidate.run else "model"


def _numbers(sweep: Sweep) -> Table:
    clicks = sweep.metric == "log_loss"
    heads = ["Tables", "Size", "Times smaller"]
    heads += ["AUC", "Change", "Log loss", "Change"] if clicks else ["RMSE", "Change"]
    rows = [
        [
            candidate.name,
            human_bytes(candidate.size_bytes),
            f"{candidate.ratio:.2f}",
            *((number(candidate.auc), _change(candidate.auc_change)) if clicks else ()),
            number(sweep.error(candidate)),
            _change(sweep.change(candidate)),
        ]
        for candidate in sweep.candidates
    ]
    caption = "Times smaller: than plain float32 tables. Changes: from the run"
    return Table(heads, rows, heads[1:], caption)


def _change(change: float | None) -> str:
    return UNKNOWN if change is None else f"{change:+.5f}"
