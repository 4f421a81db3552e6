"""The page of a sweep over smaller tables: what memory costs in log loss."""

from pathlib import Path

from dlrm.files import write_bytes
from dlrm.reporting import charts
from dlrm.reporting.document import document
from dlrm.reporting.figures import figure, key
from dlrm.reporting.markup import Html, bar, element
from dlrm.reporting.tables import table
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
    base, choice = sweep.base, sweep.choice
    within = f"within {TOLERANCE:.1%} of the run's {METRICS[sweep.metric]}"
    if choice.name == base.name:
        return f"No smaller tables are {within}: keep {base.name}."
    saved = base.size_bytes / choice.size_bytes
    return (
        f"{choice.name} is the smallest {within}: {human_bytes(choice.size_bytes)} instead of "
        f"{human_bytes(base.size_bytes)}, {saved:.1f} times less, at "
        f"{sweep.change(choice):+.5f} {METRICS[sweep.metric]}."
    )


def render(sweep: Sweep, title: str, about: str) -> str:
    """Return the page; equal sweeps give equal pages."""
    return document(
        f"{title}: dlrm compression",
        element(
            "header",
            bar("dlrm compression"),
            element("h1", title),
            element("p", about, class_="made"),
            element("p", conclusion(sweep), class_="verdict"),
        ),
        element(
            "main",
            element(
                "section",
                element("h2", f"Memory against {METRICS[sweep.metric]}"),
                element("div", _chart(sweep), class_="grid"),
            ),
            element("section", element("h2", "In numbers"), _numbers(sweep), _skipped(sweep)),
        ),
    )


def write(folder: Path, sweep: Sweep, about: str) -> Path:
    """Write compress.html into a run directory and return where it is.

    Args:
        folder: The run directory.
        sweep: What was measured.
        about: On what, in a line.

    Raises:
        MissingExtraError: matplotlib is not installed.

    """
    target = folder / "compress.html"
    write_bytes(target, render(sweep, folder.name, about).encode("utf-8", "replace"))
    return target


def _chart(sweep: Sweep) -> Html:
    best = {candidate.name for candidate in sweep.frontier}
    dots = [
        charts.Dot(
            candidate.name,
            candidate.size_bytes,
            sweep.error(candidate),
            _role(candidate),
            candidate.name in best,
        )
        for candidate in sweep.candidates
    ]
    metric = METRICS[sweep.metric]
    title = f"{metric[0].upper()}{metric[1:]} over the bytes of the tables, down and left is better"
    drawing = charts.frontier("frontier", title, dots, y_label=metric)
    used = [role for role in KINDS if any(dot.role == role for dot in dots)]
    text = "The line joins those that no other beats in both; they are named."
    if any(candidate.method in METHODS for candidate in sweep.candidates[1:]):
        text += " Trained ones also differ by the luck of one seed."
    return figure(title, [key(KINDS[role], role, dot=True) for role in used], drawing, text)


def _role(candidate: Candidate) -> str:
    return ROLES.get(candidate.method, "model") if candidate.run else "model"


def _numbers(sweep: Sweep) -> Html:
    clicks = sweep.metric == "log_loss"
    heads = ["Tables", "Size", "Times smaller"]
    heads += ["AUC", "Change", "Log loss", "Change "] if clicks else ["RMSE", "Change"]
    rows = [
        element(
            "tr",
            element("th", candidate.name, scope="row"),
            *(
                element("td", cell, class_="n")
                for cell in (
                    human_bytes(candidate.size_bytes),
                    f"{candidate.ratio:.2f}",
                    *((number(candidate.auc), _change(candidate.auc_change)) if clicks else ()),
                    number(sweep.error(candidate)),
                    _change(sweep.change(candidate)),
                )
            ),
        )
        for candidate in sweep.candidates
    ]
    caption = "Times smaller: than plain float32 tables. Changes: from the run"
    return table(heads, rows, numbers=heads[1:], caption=caption)


def _change(change: float | None) -> str:
    return UNKNOWN if change is None else f"{change:+.5f}"


def _skipped(sweep: Sweep) -> Html | None:
    if not sweep.skipped:
        return None
    items = [element("li", f"{name}: {why}") for name, why in sweep.skipped.items()]
    return element("div", element("p", "Not tried:"), element("ul", *items))
