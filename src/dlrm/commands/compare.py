"""`dlrm compare`: several models on the same rows, with several seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Group, RenderableType

from dlrm import recipes, terminal
from dlrm.commands.flags import parse
from dlrm.commands.metric_columns import METRICS, shown
from dlrm.commands.recipe_flags import recipe_config
from dlrm.commands.run_config import run_config
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, MissingExtraError, RunError
from dlrm.files import write_json
from dlrm.json_file import read_json, write_sealed
from dlrm.nn import precision
from dlrm.reporting import comparison as page
from dlrm.reporting.comparison import beside, conclusion
from dlrm.run import Run
from dlrm.schema import Task
from dlrm.training import comparison
from dlrm.training.comparison import Candidate, Comparison, check_models, of_runs
from dlrm.training.config import TrainConfig, from_dict, to_dict
from dlrm.training.run_data import open_data
from dlrm.training.significance import LEVEL
from dlrm.training.trainer import new_folder

MODELS = ("lr", "fm", "deepfm", "dcn", "dcnv2", "dlrm")
"""What is compared where nothing else is said."""
RECORD, RESULT = "comparison.json", "result.json"
KEYS = ("recipe", "config", "data", "models", "seeds", "rates")
"""What the record of a comparison holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareResult:
    """How several models compare."""

    comparison: Comparison
    folder: Path | None
    """Where the runs and the page are; None for runs that were there before."""
    report: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        return {
            "run": str(self.folder) if self.folder else None,
            **self.comparison.to_dict(),
            "conclusion": conclusion(self.comparison),
            "report": str(self.report) if self.report else None,
        }

    def __rich__(self) -> RenderableType:
        compared = self.comparison
        seeds = max(len(candidate.seeds) for candidate in compared.candidates)
        names = page.SHOWN[page.task_of(compared)]
        columns = [head for name in names for head in (METRICS[name], "spread")]
        heads = (*columns, "off", "p", "rows/s")
        grid = terminal.table(f"{compared.split} rows, mean of {seeds} seeds", "", *heads)
        for candidate in compared.candidates:
            off, chance = beside(compared, candidate)
            grid.add_row(
                candidate.name,
                *(cell for name in names for cell in _cells(candidate, name)),
                off,
                chance,
                "-" if candidate.samples_per_s is None else f"{candidate.samples_per_s:,.0f}",
            )
        if compared.optimum:
            best = [cell for name in names for cell in (shown(compared.optimum.get(name)), "")]
            grid.add_row("best possible", *best, "", "", "")
        legend = (
            f"off: from the best {compared.metric}; p: how often seeds alone make as much of a "
            f"difference, real below {LEVEL}"
        )
        lines: list[RenderableType] = [grid, legend, "", conclusion(compared)]
        if self.report:
            lines.append(f"Report: {self.report}")
        return Group(*lines)


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Train several models on the same rows, with several seeds, and say which differ.

    The first word may name a recipe, as in `dlrm train`; its flags hold for every model that knows
    them. Or give finished runs with --runs.
    """

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    models: str = ",".join(MODELS)
    """Names of models separated by commas; `trees` is LightGBM on the same rows."""
    seeds: int = 5
    """Runs of each model; fewer than four cannot show that two models differ."""
    rates: tuple[float, ...] = (0.3, 1.0, 3.0)
    """Factors of the recipe's learning rate that each model tries with the first seed; the best on
    the validation rows stays."""
    run: Path | None = None
    """Folder of all the runs; a new one under `runs/` if not given."""
    resume: bool = False
    """Go on with `--run` where it was stopped, with the flags it was started with."""


def main(words: list[str], prog: str) -> CompareResult:
    """Parse `[RECIPE] [--FLAG VALUE ...]` or `--runs RUN RUN ...` and compare."""
    if words[:1] == ["--runs"]:
        return runs([Path(word) for word in words[1:]])
    recipe, flags = recipes.first_word(words)
    name = recipe or "demo"
    arguments = parse(Arguments, flags, prog, default=Arguments(config=recipe_config(name, flags)))
    if arguments.resume:
        return _resume(arguments.run)
    models = [word.strip() for word in arguments.models.split(",") if word.strip()]
    return _start(name, arguments.config, models, arguments.seeds, arguments.rates, arguments.run)


def compare(
    recipe: Any = "demo",
    *,
    models: Sequence[str] = MODELS,
    data: Any = None,
    label: str | Sequence[str] = (),
    positive: str | None = None,
    task: Task | None = None,
    weight: str | None = None,
    time: str | None = None,
    group: str | None = None,
    schema: Path | str | None = None,
    seeds: int = 5,
    rates: Sequence[float] = (0.3, 1.0, 3.0),
    run: Path | str | None = None,
    resume: bool = False,
) -> CompareResult:
    """Train several models on the same rows, with several seeds, and say which differ.

    Args:
        recipe: What all runs share: data of one's own, name of a recipe, `module:function`, or a
            whole config.
        models: Names of models; `trees` is LightGBM.
        data: As for `dlrm.train`, as what follows.
        label: The column to predict, or several.
        positive: What the label is for a click.
        task: classification or regression.
        weight: The column that says how much each row counts.
        time: The column of times to divide the rows by.
        group: A column of which each value is in one split only.
        schema: A file that says what each column is.
        seeds: Runs of each model.
        rates: Factors of the recipe's learning rate that each model tries with the first seed.
        run: Folder of all the runs; None makes one under `runs/`.
        resume: Go on with `run` where it was stopped, with the arguments it was started with.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    folder = None if run is None else Path(run)
    if resume:
        return _resume(folder)
    name, config = run_config(
        recipe,
        data=data,
        label=label,
        positive=positive,
        task=task,
        weight=weight,
        time=time,
        group=group,
        schema=schema,
    )
    return _start(name, config, models, seeds, rates, folder)


def runs(paths: list[Path]) -> CompareResult:
    """Compare finished runs; those of one model and equal settings count as its seeds."""
    if len(paths) < 2:
        raise ConfigError("--runs needs at least two run directories")
    return CompareResult(comparison=of_runs(paths), folder=None, report=None)


def _start(
    recipe: str,
    config: TrainConfig,
    models: Sequence[str],
    seeds: int,
    rates: Sequence[float],
    folder: Path | None,
) -> CompareResult:
    if not models or seeds < 1 or not rates:
        raise ConfigError("compare needs at least one model, one seed and one rate")
    # Asked before the data are prepared, which may take long.
    check_models(models)
    folder = folder or new_folder("compare")
    with Run.locked(folder):
        Run.check_new(folder)
        config = replace(config, precision=precision.resolve(config.precision))
        dataset = open_data(config)
        record = {
            "recipe": recipe,
            "config": to_dict(config),
            "data": str(dataset.path.resolve()),
            "models": list(models),
            "seeds": seeds,
            "rates": list(rates),
        }
        write_sealed(folder / RECORD, record)
        return _compare(folder, record, dataset)


def _resume(folder: Path | None) -> CompareResult:
    if folder is None:
        raise ConfigError("--resume needs the folder of the comparison: --run FOLDER")
    if not (folder / RECORD).is_file():
        raise RunError(f"{folder} is not a comparison: it has no {RECORD}")
    record = read_json(folder / RECORD, RunError, keys=KEYS)
    with Run.locked(folder):
        return _compare(folder, record, Dataset.open(Path(record["data"])))


def _compare(folder: Path, record: dict[str, Any], dataset: Dataset) -> CompareResult:
    compared = comparison.compare(
        folder,
        record["recipe"],
        from_dict(record["config"]),
        dataset,
        models=record["models"],
        seeds=range(record["seeds"]),
        factors=record["rates"],
    )
    write_json(folder / RESULT, compared.to_dict())
    try:
        report = page.write(folder, compared)
    except MissingExtraError:
        report = None
    return CompareResult(comparison=compared, folder=folder, report=report)


def _cells(candidate: Candidate, metric: str) -> tuple[str, str]:
    mean, spread = candidate.mean(metric), candidate.spread(metric)
    return "-" if mean is None else f"{mean:.4f}", "" if spread is None else f"{spread:.4f}"
