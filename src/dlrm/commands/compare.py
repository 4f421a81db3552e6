"""`dlrm compare`: several models on the same rows, with several seeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from rich.console import Group, RenderableType

from dlrm import recipes, terminal
from dlrm.commands.flags import Folder, Names, parse_with_config
from dlrm.commands.metric_columns import METRICS, shown
from dlrm.commands.run_config import Settings, recipe_config, run_config
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, MissingExtraError, RunError
from dlrm.files import write_json
from dlrm.json_file import read_json, write_sealed
from dlrm.nn import precision
from dlrm.reporting import comparison as page
from dlrm.reporting.comparison import beside, conclusion
from dlrm.reporting.page import save
from dlrm.run import Run
from dlrm.training import compare as training
from dlrm.training.compare import check_models, of_runs
from dlrm.training.comparison import Candidate, Comparison
from dlrm.training.config import TrainConfig, from_dict, to_dict
from dlrm.training.new_run import new_folder
from dlrm.training.run_data import open_data
from dlrm.training.significance import LEVEL

MODELS = ("lr", "fm", "deepfm", "dcn", "dcnv2", "dlrm")
"""What is compared where nothing else is said."""
RESULT = "result.json"


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
        names = page.SHOWN[compared.task]
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


def compare(
    recipe: Any = "demo",
    config: TrainConfig | None = None,
    *,
    models: Names = MODELS,
    seeds: int = 5,
    rates: Sequence[float] = (0.3, 1.0, 3.0),
    run: Folder = None,
    resume: bool = False,
    **settings: Unpack[Settings],
) -> CompareResult:
    """Train several models on the same rows, with several seeds, and say which differ.

    The first word may name a recipe, as in `dlrm train`; its flags hold for every model that knows
    them. Or give finished runs with `--runs`.

    Args:
        recipe: What all runs share: data of one's own, name of a recipe, `module:function`, or a
            whole config.
        config: The whole config of the recipe, changed or not; None for the recipe's own.
        models: Names of models separated by commas; `trees` is LightGBM on the same rows.
        seeds: Runs of each model; fewer than four cannot show that two models differ.
        rates: Factors of the recipe's learning rate that each model tries with the first seed; the
            best on the validation rows stays.
        run: Folder of all the runs; a new one under `runs/` if not given.
        resume: Go on with `--run` where it was stopped, with the flags it was started with.
        settings: What changes the recipe, as for `dlrm.train`.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    name = ""
    if not resume:
        name, config = run_config(recipe, config, **settings)
        if not models or seeds < 1 or not rates:
            raise ConfigError("compare needs at least one model, one seed and one rate")
        # Asked before the data are prepared, which may take long.
        check_models(models)
    asked = {"recipe": name, "models": list(models), "seeds": seeds, "rates": list(rates)}
    with recorded("compare", "comparison", run, None if resume else config, asked) as (
        folder, record, shared, dataset,
    ):  # fmt: skip
        compared = training.compare(
            folder,
            record["recipe"],
            shared,
            dataset,
            models=record["models"],
            seeds=range(record["seeds"]),
            factors=record["rates"],
        )
        write_json(folder / RESULT, compared.to_dict())
        report = without_extra(
            lambda: save(page.page(compared, folder.name), folder / "compare.html")
        )
    return CompareResult(comparison=compared, folder=folder, report=report)


def main(words: list[str], prog: str) -> CompareResult:
    """Parse `[RECIPE] [--FLAG VALUE ...]` or `--runs RUN RUN ...` and compare."""
    if words[:1] == ["--runs"]:
        if len(words) < 3:
            raise ConfigError("--runs needs at least two run directories")
        compared = of_runs([Path(word) for word in words[1:]])
        return CompareResult(comparison=compared, folder=None, report=None)
    recipe, flags = recipes.first_word(words)
    name = recipe or "demo"
    config, given = parse_with_config(compare, recipe_config(name, flags), flags, prog)
    return compare(name, config, **given)


@contextmanager
def recorded(
    command: str,
    what: str,
    run: Path | str | None,
    config: TrainConfig | None,
    asked: Mapping[str, Any],
) -> Iterator[tuple[Path, dict[str, Any], TrainConfig, Dataset]]:
    """Lock a folder of runs within the block: a new one, or one that was stopped.

    Args:
        command: That compares runs; a new folder is called so.
        what: What it makes, `comparison` or `experiment`; its record is called so.
        run: The folder; None for a new one.
        config: What all runs of a new folder share; None to go on with one.
        asked: What else the record of a new folder says, JSON-ready.

    Yields:
        The folder, its record, the config that all runs share, and their data.

    Raises:
        ConfigError: There is no folder to go on with.
        RunError: It is none of this command, or exists already, or another process works on it.

    """
    if config is None and run is None:
        raise ConfigError(f"--resume needs the folder of the {what}: --run FOLDER")
    folder = new_folder(command) if run is None else Path(run)
    file = folder / f"{what}.json"
    if config is None and not file.is_file():
        article = "an" if what[0] == "e" else "a"
        raise RunError(f"{folder} is not {article} {what}: it has no {file.name}")
    with Run.locked(folder):
        if config is not None:
            Run.check_new(folder)
            config = replace(config, precision=precision.resolve(config.precision))
            data = str(open_data(config).path.resolve())
            write_sealed(file, {**asked, "config": to_dict(config), "data": data})
        record = read_json(file, RunError, keys=("config", "data", *asked))
        yield folder, record, from_dict(record["config"]), Dataset.open(Path(record["data"]))


def without_extra(draw: Callable[[], Path]) -> Path | None:
    """Return the page that was drawn; None where the extra that draws is missing."""
    try:
        return draw()
    except MissingExtraError:
        return None


def _cells(candidate: Candidate, metric: str) -> tuple[str, str]:
    mean, spread = candidate.mean(metric), candidate.spread(metric)
    return "-" if mean is None else f"{mean:.4f}", "" if spread is None else f"{spread:.4f}"
