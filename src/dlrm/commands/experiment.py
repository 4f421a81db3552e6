"""`dlrm experiment figure5`: the paper's comparison of DLRM with DCN, on the user's data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from dlrm import terminal
from dlrm.commands.compare import RESULT, recorded, without_extra
from dlrm.commands.flags import Folder, parse_with_config
from dlrm.errors import ConfigError, unknown
from dlrm.files import write_json
from dlrm.recipes.criteo import (
    FIGURE5_MODELS,
    FIGURE5_OPTIMIZERS,
    figure5,
    with_optimizer,
)
from dlrm.reporting import figure5 as page
from dlrm.reporting.figure5 import conclusion
from dlrm.reporting.page import save
from dlrm.training.compare import compare
from dlrm.training.comparison import Comparison
from dlrm.training.config import TrainConfig

EXPERIMENTS = ("figure5",)
POINTS = 20
"""Points of each curve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentResult:
    """DLRM beside DCN, with each optimizer."""

    folder: Path
    comparisons: dict[str, Comparison]
    """Comparison of the models with each optimizer."""
    report: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            "run": str(self.folder),
            "conclusion": conclusion(self.comparisons),
            **{name: compared.to_dict() for name, compared in self.comparisons.items()},
            "report": str(self.report) if self.report else None,
        }

    def __rich__(self) -> RenderableType:
        split = next(iter(self.comparisons.values())).split
        grid = terminal.table(f"{split} rows", "", "rate", "accuracy", "AUC", "log loss")
        for optimizer, compared in self.comparisons.items():
            for name in FIGURE5_MODELS:
                candidate = compared.candidate(name)
                means = (candidate.mean(metric) for metric in ("accuracy", "auc", "log_loss"))
                cells = ("-" if mean is None else f"{mean:.4f}" for mean in means)
                grid.add_row(f"{name}, {optimizer}", f"{candidate.lr:g}", *cells)
        lines: list[RenderableType] = [grid, conclusion(self.comparisons)]
        if self.report:
            lines.append(f"Report: {self.report}")
        return Group(*lines)


def experiment(
    name: str = "figure5",
    config: TrainConfig | None = None,
    *,
    seeds: int = 1,
    rates: Sequence[float] = (0.1, 0.3, 1.0),
    run: Folder = None,
    resume: bool = False,
) -> ExperimentResult:
    """Repeat figure 5 of the paper: DLRM against DCN, with SGD and with Adagrad.

    Both models train one epoch with either optimizer, each with the best of a few learning rates;
    their accuracy on training and validation rows is drawn over the steps. Give any Criteo data.

    Args:
        name: figure5.
        config: What all runs share, with the data; None for the experiment's own.
        seeds: Runs of each model and optimizer.
        rates: Factors of the learning rates 0.1 (SGD) and 0.01 (Adagrad) that are tried with the
            first seed; the best on the validation rows stays.
        run: Folder of all the runs; a new one under `runs/` if not given.
        resume: Go on with `--run` where it was stopped, with the flags it was started with.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    if seeds < 1 or not rates:
        raise ConfigError("the experiment needs at least one seed and one rate")
    asked = {"seeds": seeds, "rates": list(rates)}
    with recorded(name, "experiment", run, None if resume else config or figure5(), asked) as (
        folder, record, shared, dataset,
    ):  # fmt: skip
        steps = -(-len(dataset.split("train")) // shared.loader.batch_size)
        often = replace(shared.eval, every=shared.eval.every or max(1, -(-steps // POINTS)))
        comparisons = {
            optimizer: compare(
                folder / optimizer,
                "criteo-kaggle",
                with_optimizer(replace(shared, eval=often), optimizer),
                dataset,
                models=FIGURE5_MODELS,
                seeds=range(record["seeds"]),
                factors=record["rates"],
            )
            for optimizer in FIGURE5_OPTIMIZERS
        }
        results = {optimizer: compared.to_dict() for optimizer, compared in comparisons.items()}
        write_json(folder / RESULT, results)
        report = without_extra(lambda: save(page.page(comparisons), folder / "figure5.html"))
    return ExperimentResult(folder=folder, comparisons=comparisons, report=report)


def main(words: list[str], prog: str) -> ExperimentResult:
    """Parse `figure5 [--FLAG VALUE ...]` and run the experiment."""
    first = words[0] if words else ""
    if first not in EXPERIMENTS and not first.startswith("-"):
        raise unknown("experiment", first, EXPERIMENTS)
    flags = words[1:] if first in EXPERIMENTS else words
    config, given = parse_with_config(experiment, figure5(), flags, prog)
    return experiment(EXPERIMENTS[0], config, **given)
