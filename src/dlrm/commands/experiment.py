"""`dlrm experiment figure5`: the paper's comparison of DLRM with DCN, on the user's data."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Group, RenderableType

from dlrm import terminal
from dlrm.commands.flags import parse
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, MissingExtraError, RunError, unknown
from dlrm.files import write_json
from dlrm.json_file import read_json, write_sealed
from dlrm.nn import precision
from dlrm.recipes.criteo import (
    FIGURE5_MODELS,
    FIGURE5_OPTIMIZERS,
    figure5,
    with_optimizer,
)
from dlrm.reporting import figure5 as page
from dlrm.reporting.figure5 import conclusion
from dlrm.run import Run
from dlrm.training.comparison import Comparison, compare
from dlrm.training.config import TrainConfig, from_dict, to_dict
from dlrm.training.run_data import open_data
from dlrm.training.trainer import new_folder

EXPERIMENTS = ("figure5",)
RECORD, RESULT = "experiment.json", "result.json"
KEYS = ("config", "data", "seeds", "rates")
"""What the record of an experiment holds."""
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
                candidate = compared.of(name)
                means = (candidate.mean(metric) for metric in ("accuracy", "auc", "log_loss"))
                cells = ("-" if mean is None else f"{mean:.4f}" for mean in means)
                grid.add_row(f"{name}, {optimizer}", f"{candidate.lr:g}", *cells)
        lines: list[RenderableType] = [grid, conclusion(self.comparisons)]
        if self.report:
            lines.append(f"Report: {self.report}")
        return Group(*lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Repeat figure 5 of the paper: DLRM against DCN, with SGD and with Adagrad.

    Both models train one epoch with either optimizer, each with the best of a few learning rates;
    their accuracy on training and validation rows is drawn over the steps. Give any Criteo data.
    """

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    seeds: int = 1
    """Runs of each model and optimizer."""
    rates: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Factors of the learning rates 0.1 (SGD) and 0.01 (Adagrad) that are tried with the first
    seed; the best on the validation rows stays."""
    run: Path | None = None
    """Folder of all the runs; a new one under `runs/` if not given."""
    resume: bool = False
    """Go on with `--run` where it was stopped, with the flags it was started with."""


def main(words: list[str], prog: str) -> ExperimentResult:
    """Parse `figure5 [--FLAG VALUE ...]` and run the experiment."""
    first = words[0] if words else ""
    if first not in EXPERIMENTS and not first.startswith("-"):
        raise unknown("experiment", first, EXPERIMENTS)
    flags = words[1:] if first in EXPERIMENTS else words
    arguments = parse(Arguments, flags, prog, default=Arguments(config=figure5()))
    return experiment(
        config=arguments.config,
        seeds=arguments.seeds,
        rates=arguments.rates,
        run=arguments.run,
        resume=arguments.resume,
    )


def experiment(
    name: str = "figure5",
    config: TrainConfig | None = None,
    *,
    seeds: int = 1,
    rates: Sequence[float] = (0.1, 0.3, 1.0),
    run: Path | str | None = None,
    resume: bool = False,
) -> ExperimentResult:
    """Repeat an experiment of the paper, on any Criteo data.

    Args:
        name: figure5, DLRM against DCN with SGD and with Adagrad.
        config: What all runs share, with the data; None for the experiment's own.
        seeds: Runs of each model and optimizer.
        rates: Factors of the learning rates that are tried with the first seed.
        run: Folder of all the runs; None makes one under `runs/`.
        resume: Go on with `run` where it was stopped, with the arguments it was started with.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    folder = None if run is None else Path(run)
    if resume:
        if folder is None:
            raise ConfigError("--resume needs the folder of the experiment: --run FOLDER")
        if not (folder / RECORD).is_file():
            raise RunError(f"{folder} is not an experiment: it has no {RECORD}")
        record = read_json(folder / RECORD, RunError, keys=KEYS)
        return _repeat(folder, record, Dataset.open(Path(record["data"])))
    if seeds < 1 or not rates:
        raise ConfigError("the experiment needs at least one seed and one rate")
    folder = folder or new_folder("figure5")
    Run.check_new(folder)
    config = config or figure5()
    config = replace(config, precision=precision.resolve(config.precision))
    dataset = open_data(config)
    record = {
        "config": to_dict(config),
        "data": str(dataset.path.resolve()),
        "seeds": seeds,
        "rates": list(rates),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_sealed(folder / RECORD, record)
    return _repeat(folder, record, dataset)


def _repeat(folder: Path, record: dict[str, Any], dataset: Dataset) -> ExperimentResult:
    config = from_dict(record["config"])
    if not config.eval.every:
        steps = -(-len(dataset.split("train")) // config.loader.batch_size)
        config = replace(config, eval=replace(config.eval, every=max(1, -(-steps // POINTS))))
    with Run.locked(folder):
        comparisons = {
            optimizer: compare(
                folder / optimizer,
                "criteo-kaggle",
                with_optimizer(config, optimizer),
                dataset,
                models=FIGURE5_MODELS,
                seeds=range(record["seeds"]),
                factors=record["rates"],
            )
            for optimizer in FIGURE5_OPTIMIZERS
        }
    write_json(
        folder / RESULT, {name: compared.to_dict() for name, compared in comparisons.items()}
    )
    try:
        report = page.write(folder, comparisons)
    except MissingExtraError:
        report = None
    return ExperimentResult(folder=folder, comparisons=comparisons, report=report)
