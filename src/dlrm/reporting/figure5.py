"""The page of figure 5: accuracy of DLRM and DCN over the steps, with SGD and with Adagrad."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from dlrm.reporting.charts.curves import Line, curves, line
from dlrm.reporting.charts.drawing import Figure
from dlrm.reporting.comparison import mean_of
from dlrm.reporting.page import Page
from dlrm.reporting.words import number
from dlrm.run import Run
from dlrm.training.comparison import Candidate, Comparison
from dlrm.training.significance import LEVEL

OPTIMIZERS = {"sgd": "SGD", "adagrad": "Adagrad"}
NAMES = {"dlrm": "DLRM", "dcn": "DCN"}
ROLES = {"dlrm": "model", "dcn": "train"}


def conclusion(comparisons: Mapping[str, Comparison]) -> str:
    """Return which model came out ahead with each optimizer, in a sentence each."""
    sentences = []
    for optimizer, compared in comparisons.items():
        dlrm, dcn = (compared.candidate(name).mean("accuracy") for name in NAMES)
        if dlrm is None or dcn is None:
            continue
        chance = compared.chance(compared.candidate("dlrm"), compared.candidate("dcn"), "accuracy")
        if chance is None or chance >= LEVEL:
            why = "with so few seeds" if chance is None else "by more than the noise of the seeds"
            came = f"DLRM and DCN are not told apart {why}: accuracy {number(dlrm)} and"
            came += f" {number(dcn)}"
        else:
            ahead, behind = ("DLRM", "DCN") if dlrm >= dcn else ("DCN", "DLRM")
            came = f"{ahead} is ahead of {behind}: accuracy {number(max(dlrm, dcn))} against"
            came += f" {number(min(dlrm, dcn))}"
        sentences.append(f"With {OPTIMIZERS[optimizer]}, {came} on the {compared.split} rows.")
    return " ".join(sentences)


def page(comparisons: Mapping[str, Comparison]) -> Page:
    """Return the page of the experiment, by optimizer."""
    first = next(iter(comparisons.values()))
    seeds = max(len(candidate.seeds) for candidate in first.candidates)
    return Page(
        kind="dlrm experiment",
        title="DLRM against DCN",
        about=f"{first.data} · {seeds} seed{'s' if seeds > 1 else ''} · after arXiv 1906.00091",
        verdict=conclusion(comparisons),
        template="figure5.html",
        shown={
            "charts": [_chart(name, compared) for name, compared in comparisons.items()],
            "candidates": [
                (f"{NAMES[name]}, {OPTIMIZERS[optimizer]}", compared.candidate(name))
                for optimizer, compared in comparisons.items()
                for name in NAMES
            ],
            "split": first.split,
            "mean_of": mean_of,
        },
    )


def _chart(optimizer: str, compared: Comparison) -> Figure:
    lines = [
        _curve(compared.candidate(name), split)
        for name in NAMES
        for split in ("train", "validation")
    ]
    title = f"{OPTIMIZERS[optimizer]}: accuracy"
    return curves(f"accuracy-{optimizer}", title, lines, "share of rows that are right")


def _curve(candidate: Candidate, split: str) -> Line:
    """Return the accuracy of a model over the steps, the mean over its seeds."""
    at: dict[int, list[float]] = defaultdict(list)
    for seed in candidate.seeds:
        for event in Run.open(Path(seed.run or "")).metrics():
            if event["event"] == "eval" and event["split"] == split:
                at[event["step"]].append(event["accuracy"])
    points = [(float(step), fmean(values)) for step, values in sorted(at.items())]
    name, dashes = candidate.name, "4 1.5" if split == "train" else ""
    return line(f"{NAMES[name]}, {split}", ROLES[name], points, dashes=dashes)
