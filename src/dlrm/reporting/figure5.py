"""The page of figure 5: accuracy of DLRM and DCN over the steps, with SGD and with Adagrad."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from dlrm.files import write_bytes
from dlrm.reporting import charts
from dlrm.reporting.document import document
from dlrm.reporting.figures import absent, figure, key, note
from dlrm.reporting.markup import Html, bar, element
from dlrm.reporting.series import Line, line, window
from dlrm.reporting.tables import table
from dlrm.reporting.words import number
from dlrm.run import Run
from dlrm.training.comparison import Candidate, Comparison
from dlrm.training.significance import LEVEL

OPTIMIZERS = {"sgd": "SGD", "adagrad": "Adagrad"}
ROLES = {"dlrm": "model", "dcn": "train"}
NAMES = {"dlrm": "DLRM", "dcn": "DCN"}
METRICS = ("accuracy", "auc", "log_loss")


def conclusion(comparisons: Mapping[str, Comparison]) -> str:
    """Return which model came out ahead with each optimizer, in a sentence each."""
    sentences = []
    for optimizer, compared in comparisons.items():
        dlrm, dcn = (compared.of(name).mean("accuracy") for name in NAMES)
        if dlrm is None or dcn is None:
            continue
        chance = compared.chance(compared.of("dlrm"), compared.of("dcn"), "accuracy")
        if chance is None or chance >= LEVEL:
            why = "with so few seeds" if chance is None else "by more than the noise of the seeds"
            sentences.append(
                f"With {OPTIMIZERS[optimizer]}, DLRM and DCN are not told apart {why}: accuracy "
                f"{number(dlrm)} and {number(dcn)} on the {compared.split} rows."
            )
            continue
        ahead, behind = ("DLRM", "DCN") if dlrm >= dcn else ("DCN", "DLRM")
        sentences.append(
            f"With {OPTIMIZERS[optimizer]}, {ahead} is ahead of {behind}: accuracy "
            f"{number(max(dlrm, dcn))} against {number(min(dlrm, dcn))} on the {compared.split} "
            "rows."
        )
    return " ".join(sentences)


def render(comparisons: Mapping[str, Comparison], title: str) -> str:
    """Return the page; equal runs give equal pages."""
    first = next(iter(comparisons.values()))
    seeds = max(len(candidate.seeds) for candidate in first.candidates)
    about = f"{first.data} · {seeds} seed{'s' if seeds > 1 else ''} · after arXiv 1906.00091"
    drawn = [_chart(optimizer, compared) for optimizer, compared in comparisons.items()]
    return document(
        f"{title}: DLRM against DCN",
        element(
            "header",
            bar("dlrm experiment"),
            element("h1", "DLRM against DCN"),
            element("p", about, class_="made"),
            element("p", conclusion(comparisons), class_="verdict"),
        ),
        element(
            "main",
            element(
                "section",
                element("h2", "Accuracy over one epoch"),
                element("div", *drawn, class_="grid"),
            ),
            element("section", element("h2", "In numbers"), _numbers(comparisons)),
        ),
    )


def write(folder: Path, comparisons: Mapping[str, Comparison]) -> Path:
    """Write figure5.html into the folder of the experiment and return where it is.

    Raises:
        MissingExtraError: matplotlib is not installed.

    """
    target = folder / "figure5.html"
    write_bytes(target, render(comparisons, folder.name).encode("utf-8", "replace"))
    return target


def _chart(optimizer: str, compared: Comparison) -> Html:
    lines = [
        _curve(compared.of(name), split) for name in NAMES for split in ("train", "validation")
    ]
    lines = [line for line in lines if len(line)]
    title = f"{OPTIMIZERS[optimizer]}: accuracy"
    if not lines:
        return absent(title, "nothing was evaluated during training")
    drawing = charts.curves(
        f"accuracy-{optimizer}", title, lines, y_label="share of rows that are right"
    )
    legend = [key(line.label, line.role, "4 1.5" if line.dashed else None) for line in lines]
    return figure(title, legend, drawing, note(lines, window(lines).hidden))


def _curve(candidate: Candidate, split: str) -> Line:
    """Return the accuracy of a model over the steps, the mean over its seeds."""
    at: dict[int, list[float]] = defaultdict(list)
    for seed in candidate.seeds:
        for event in Run.open(Path(seed.run or "")).metrics():
            if event["event"] == "eval" and event["split"] == split:
                at[event["step"]].append(event["accuracy"])
    label = f"{NAMES[candidate.name]}, {split}"
    points = [(float(step), fmean(values)) for step, values in sorted(at.items())]
    return replace(line(label, ROLES[candidate.name], points), dashed=split == "train")


def _numbers(comparisons: Mapping[str, Comparison]) -> Html:
    rows = []
    for optimizer, compared in comparisons.items():
        for name, shown in NAMES.items():
            candidate = compared.of(name)
            cells = [f"{candidate.lr:g}", f"{candidate.parameters:,}"]
            for metric in METRICS:
                mean, spread = candidate.mean(metric), candidate.spread(metric)
                cells.append(
                    number(mean) if spread is None else f"{number(mean)} ± {number(spread)}"
                )
            rows.append(
                element(
                    "tr",
                    element("th", f"{shown}, {OPTIMIZERS[optimizer]}", scope="row"),
                    *(element("td", cell, class_="n") for cell in cells),
                )
            )
    heads = ["Model and optimizer", "Rate", "Parameters", "Accuracy", "AUC", "Log loss"]
    caption = f"On the {next(iter(comparisons.values())).split} rows"
    return table(heads, rows, numbers=heads[1:], caption=caption)
