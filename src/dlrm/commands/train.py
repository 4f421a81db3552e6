"""`dlrm train`: from data to a trained, evaluated and reported model."""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

from rich.console import Group, RenderableType

from dlrm import recipes, reporting, terminal
from dlrm.commands.flags import Folder, parse_with_config, take_value
from dlrm.commands.metric_columns import METRICS, known, of_labels, shown
from dlrm.commands.run_config import Settings, going_on, recipe_config, run_config, with_model
from dlrm.errors import ConfigError, Interrupted, MissingExtraError, WorldError
from dlrm.parallel import launch_env
from dlrm.parallel.launch import launch
from dlrm.parallel.launch_env import LaunchEnv
from dlrm.reporting.run import next_words
from dlrm.run import Run
from dlrm.runtimes.runtime import find as find_runtime
from dlrm.training.build import world_of
from dlrm.training.config import TrainConfig, from_dict
from dlrm.training.ensemble import mean_of_members, model_name
from dlrm.training.evaluate import HELD_OUT
from dlrm.training.load import TrainingStats, training_stats
from dlrm.training.loop import Loop, NewStep
from dlrm.training.trainer import Trainer

LEFT_OUT = ("gauc", "ece")
"""Metrics that the table after a training has no room for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What a training run came to."""

    run: Path
    """The run directory."""
    model: str
    """Name of the model: `dlrm`, or `dlrm x 5` for an ensemble."""
    evaluations: dict[str, dict[str, Any]]
    """Split -> its `metrics`, and where known those of the `members`, the `optimum`, the
    `trees` and the `baseline`; of several labels those of the first, and of each below `labels`."""
    effort: TrainingStats
    """What the training took; of an ensemble all members together."""
    report: Path | None
    """report.html; None without the extra that draws it."""

    @property
    def split(self) -> str | None:
        """The split whose metrics stand for the run: test, or else validation."""
        return next((name for name in ("test", "validation") if name in self.evaluations), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready; metrics of the test split stand at the top."""
        judged = self.evaluations[self.split] if self.split else {}
        by_label = {name: _beside(label) for name, label in of_labels(judged) if name}
        return {
            "run": str(self.run),
            "model": self.model,
            "split": self.split,
            **_beside(judged),
            **({"labels": by_label} if by_label else {}),
            "steps": self.effort.step,
            "elapsed_s": self.effort.elapsed_s,
            "samples_per_s": self.effort.samples_per_s,
            "products": judged.get("products"),
            "report": str(self.report) if self.report else None,
        }

    @property
    def next_command(self) -> str:
        """A command that uses the model."""
        return shlex.join(next_words(Run(self.run)))

    def __rich__(self) -> RenderableType:
        lines: list[RenderableType] = [self._grid()] if self.evaluations else []
        if not self.evaluations:
            lines = ["No rows were held back, so nothing was measured: see --prepare.fractions"]
        lines += self._undefined()
        took = self.effort
        lines.append(
            f"{took.step:,} steps in {took.elapsed_s:.1f} s, {took.samples_per_s:,.0f} samples/s"
        )
        if self.report:
            lines.append(f"Report: {self.report}")
        else:
            lines.append("No report.html: it needs pip install 'opendlrm[report]'")
        return Group(*lines)

    def _undefined(self) -> list[str]:
        """Return why splits lack metrics."""
        return [
            f"{split}{f', {label}' if label else ''}: no AUC, because all "
            f"{values['metrics']['samples']:,} rows have the same label"
            for split, evaluation in self.evaluations.items()
            for label, values in of_labels(evaluation)
            if values["metrics"].get("auc", 0) is None
        ]

    def _grid(self) -> RenderableType:
        """Return a table with rows for each split, of several labels a block for each of them."""
        first = next(iter(self.evaluations.values()))
        names = known(first["metrics"], *LEFT_OUT)
        grid = terminal.table(None, "", *(METRICS[name] for name in names))
        for label, _ in of_labels(first):
            if label:
                grid.add_row(label, style="bold")
            for split, evaluation in self.evaluations.items():
                mine = dict(of_labels(evaluation))[label]
                for who, metrics in self._rows(split, mine, names).items():
                    grid.add_row(who, *(shown(metrics.get(name)) for name in names))
        return grid

    def _rows(
        self, split: str, evaluation: dict[str, Any], names: list[str]
    ) -> dict[str, Mapping[str, float | None]]:
        """Return the metrics of the model, and of what stands beside it, by name."""
        members = evaluation["members"]
        rows = {f"{split}: {self.model if members else 'model'}": evaluation["metrics"]}
        if members:
            rows["  each alone, mean"] = mean_of_members(members, names)
        if baseline := evaluation["baseline"]:
            rows[f"  baseline {baseline['name']}"] = baseline["metrics"]
        if trees := evaluation.get("trees"):
            rows["  LightGBM, its defaults"] = trees
        if evaluation["optimum"]:
            rows["  optimum"] = evaluation["optimum"]
        return rows


def _beside(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of a model, and those of what stands beside it."""
    return {
        **evaluation.get("metrics", {}),
        "members": evaluation.get("members"),
        "optimum": evaluation.get("optimum"),
        "baseline": (evaluation.get("baseline") or {}).get("metrics"),
        "trees": evaluation.get("trees"),
    }


def result_of(run: Run) -> TrainResult:
    """Return what a finished run came to."""
    known = {split: run.evaluation(split) for split in HELD_OUT}
    report = run.path / "report.html"
    return TrainResult(
        run=run.path,
        model=model_name(from_dict(run.config)),
        evaluations={
            split: evaluation for split, evaluation in known.items() if evaluation is not None
        },
        effort=training_stats(run),
        report=report if report.is_file() else None,
    )


def train(
    recipe: Any = "demo",
    config: TrainConfig | None = None,
    *,
    run: Folder = None,
    resume: bool = False,
    procs: int = 1,
    **settings: Unpack[Settings],
) -> TrainResult:
    """Train a model, evaluate its best checkpoint and write the report.

    The first word may name a table of your own (CSV, TSV, Parquet, libsvm; a path, a pattern, or a
    folder with files named train, valid and test): dlrm train clicks.csv --label clicked. Or
    it names a recipe, which sets the defaults of the flags below: demo (the default),
    criteo-kaggle, criteo-terabyte, or module:function for one of your own. `--model NAME` trains
    another model than the recipe's, or module:Class one of your own, with its own flags: `--model
    dcn --help` lists them.

    Args:
        recipe: Data of one's own, a path or a frame of pandas or Polars; name of a recipe,
            `module:function`, or a whole config. A resumed run keeps its own.
        config: The whole config of the recipe, changed or not; None for the recipe's own.
        run: The run directory; a new one under `runs/` if not given.
        resume: Go on with `--run` from its newest checkpoint, with the config it was started with,
            on as many processes as `--procs` says now.
        procs: Processes on this machine that share the tables and the samples of each batch. On
            several machines: torchrun ... -m dlrm train.
        settings: What changes the recipe: `data`, `label`, `model`, ...; see
            `dlrm.commands.run_config.Settings`.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    if procs < 1:
        raise ConfigError(f"--procs is {procs}: at least 1 process is needed")
    if not resume:
        name, config = run_config(recipe, config, **settings)
        path = None if run is None else Path(run)
        if procs > 1:
            return _launch(procs, Trainer.start(name, config, path, procs=procs).run)
        with world_of(config) as world:
            new_step = step_of(config)
            trainer = Trainer.start(name, config, path, world=world)
            return _finish(replace(trainer, new_step=new_step))
    if run is None:
        raise ConfigError("resume needs the run directory")
    opened = Run.open(run, check=False)
    before = from_dict(opened.config)
    if procs > 1:
        changed = {} if config is None else {"device": config.device}
        changed |= {} if config is None or config.data == before.data else {"data": config.data}
        return _launch(procs, opened, *(f"--{name}={value}" for name, value in changed.items()))
    with world_of(before) as world:
        new_step = step_of(before)
        return _finish(replace(Trainer.resume(run, config, world=world), new_step=new_step))


def step_of(config: TrainConfig) -> NewStep:
    """Return what makes the training step in the framework of a config.

    Raises:
        MissingExtraError: The framework is not installed.

    """
    if config.framework == "torch":
        return Loop.step
    find_runtime("jax").require()
    from dlrm.runtimes.jax.step import jax_step

    return jax_step


def main(words: list[str], prog: str) -> TrainResult | None:
    """Parse `[RECIPE] [--FLAG VALUE ...]` and train.

    Returns:
        None on processes that leave the result to another one.

    """
    recipe, flags = recipes.first_word(words)
    name = recipe or "demo"
    again = "--resume" in flags
    if not again and (restarted := launch_env.restarted(take_value(list(flags), "--run"))):
        # The launcher has started all processes anew after one was lost.
        flags += ["--resume"] if "--run" in flags else ["--resume", "--run", str(restarted)]
        again = True
    path = take_value(list(flags), "--run")
    if again and path is None:
        raise ConfigError("--resume needs the run directory: --run RUN")
    if again and recipe and path and Run.begun(Path(path)) == {}:
        # It was killed before it had written anything: these words start it.
        flags, again = [flag for flag in flags if flag != "--resume"], False
    if again and path:
        config = _resumed(Run.open(path, check=False), recipe, flags)
    else:
        origin = take_value(list(flags), "--from")
        name, config = (name, recipe_config(name, flags)) if origin is None else going_on(origin)
        config = with_model(config, flags)
    config, given = parse_with_config(train, config, flags, prog)
    result = train(name, config, **given)
    env = LaunchEnv.read()
    return None if launch_env.by_us() or (env and env.rank) else result


def _resumed(run: Run, recipe: str | None, flags: list[str]) -> TrainConfig:
    """Return the config of a run that flags may say again, and take `--model` away from them."""
    if recipe not in (None, run.recipe):
        raise ConfigError(f"{run.path} was started with the recipe {run.recipe}")
    config = from_dict(run.config)
    model = take_value(flags, "--model")
    if model and model != config.model.name:
        raise ConfigError(f"the run was started with the model {config.model.name}, not {model}")
    # Flags add to these lists, and what is told again counts once.
    names = {flag.partition("=")[0].removeprefix("--").removeprefix("prepare.") for flag in flags}
    again: dict[str, Any] = {n: () for n in ("label", "category", "missing") if n in names}
    return replace(config, prepare=replace(config.prepare, **again))


def _launch(procs: int, run: Run, *flags: str) -> TrainResult:
    """Train a run on several processes of this machine and return what they came to."""
    status = launch(procs, ["train", "--run", str(run.path), "--resume", *flags])
    # What happened has been said by the process that it happened to.
    if status == 130:
        raise Interrupted("")
    if status:
        saved = any((run.path / "checkpoints").glob("step-*"))
        again = f"; go on with: dlrm train --run {run.path} --resume --procs {procs}"
        raise WorldError(f"the run has ended{again if saved else ''}")
    return result_of(run)


def _finish(trainer: Trainer) -> TrainResult:
    """Train a run to its end, and write its report."""
    trainer.finish()
    if trainer.world.first:
        with suppress(MissingExtraError):
            reporting.write(trainer.run.path)
    trainer.world.barrier()
    return result_of(trainer.run)
