"""`dlrm train`: from data to a trained, evaluated and reported model."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from dlrm import recipes, reporting, terminal
from dlrm.commands.flags import parse, take_value
from dlrm.commands.recipe_flags import recipe_config, with_model
from dlrm.commands.run_config import going_on, run_config
from dlrm.commands.train_result import TrainResult, result_of
from dlrm.errors import ConfigError, Interrupted, MissingExtraError, WorldError
from dlrm.parallel import launch_env
from dlrm.parallel.launch import launch
from dlrm.parallel.world import World
from dlrm.run import Run
from dlrm.schema import Task
from dlrm.training.config import TrainConfig, from_dict
from dlrm.training.device import resolve_device
from dlrm.training.trainer import Trainer


def train(
    recipe: Any = "demo",
    *,
    data: Any = None,
    label: str | Sequence[str] = (),
    positive: str | None = None,
    task: Task | None = None,
    weight: str | None = None,
    time: str | None = None,
    group: str | None = None,
    schema: Path | str | None = None,
    model: str | None = None,
    from_run: Path | str | None = None,
    run: Path | str | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train a model, evaluate its best checkpoint and write the report.

    Started by torchrun, on all of its processes together.

    Args:
        recipe: Data of one's own, a path or a frame of pandas or Polars; name of a recipe,
            `module:function`, or a whole config. A resumed run keeps its own.
        data: Data for a recipe, a path or a frame.
        label: The column to predict, or several.
        positive: The label that counts as positive, see `dlrm.data.options.PrepareConfig`.
        task: classification or regression.
        weight: The column that says how much each row counts.
        time: The column of times to divide the rows by.
        group: A column of which each value is in one split only.
        schema: A file that says what each column is.
        model: Another model than the recipe's.
        from_run: A run to go on from with new rows, in place of a recipe.
        run: The run directory; None makes one under `runs/`.
        resume: Go on with the run from its newest checkpoint.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    if resume:
        if run is None:
            raise ConfigError("resume needs the run directory")
        with _world(from_dict(Run.open(run, check=False).config)) as world:
            return _finish(Trainer.resume(run, world=world))
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
        model=model,
        from_run=from_run,
    )
    with _world(config) as world:
        path = None if run is None else Path(run)
        return _finish(Trainer.start(name, config, path, world=world))


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Train a model, evaluate its best checkpoint and write the report.

    The first word may name a table of your own (CSV, TSV, Parquet, libsvm; a path, a pattern, or a
    folder with files named train, valid and test): dlrm train clicks.csv --label clicked. Or
    it names a recipe, which sets the defaults of the flags below: demo (the default),
    criteo-kaggle, criteo-terabyte, or module:function for one of your own. `--model NAME` trains
    another model than the recipe's, or module:Class one of your own, with its own flags: `--model
    dcn --help` lists them.
    """

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    run: Path | None = None
    """The run directory; a new one under `runs/` if not given."""
    resume: bool = False
    """Go on with `--run` from its newest checkpoint, with the config it was started with, on as
    many processes as `--procs` says now."""
    procs: int = 1
    """Processes on this machine that share the tables and the samples of each batch. On several
    machines: torchrun ... -m dlrm train."""


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
    if again and recipe and Run.begun(_run_flag(flags)) == {}:
        # It was killed before it had written anything: these words start it.
        flags, again = [flag for flag in flags if flag != "--resume"], False
    resumed = Run.open(_run_flag(flags), check=False) if again else None
    if resumed and recipe not in (None, resumed.recipe):
        raise ConfigError(f"{resumed.path} was started with the recipe {resumed.recipe}")
    if resumed:
        config = from_dict(resumed.config)
        defaults = _without_lists(config, flags)
        model = take_value(flags, "--model")
        if model and model != config.model.name:
            raise ConfigError(
                f"the run was started with the model {config.model.name}, not {model}"
            )
    else:
        origin = take_value(list(flags), "--from")
        name, config = (name, recipe_config(name, flags)) if origin is None else going_on(origin)
        config = defaults = with_model(config, flags)
    arguments = parse(Arguments, flags, prog, default=Arguments(config=defaults))
    procs = arguments.procs
    if procs < 1:
        raise ConfigError(f"--procs is {procs}: at least 1 process is needed")
    if not resumed:
        if procs > 1:
            started = Trainer.start(name, arguments.config, arguments.run, procs=procs)
            return _launch(procs, started.run)
        with _world(arguments.config) as world:
            result = _finish(Trainer.start(name, arguments.config, arguments.run, world=world))
            return result if world.first and not launch_env.by_us() else None
    for field in fields(TrainConfig):
        # The data may have moved, and so may the model; anything else would make another run of it.
        before, now = getattr(config, field.name), getattr(arguments.config, field.name)
        if before != now and field.name not in ("data", "device"):
            raise ConfigError(
                f"{resumed.path} was started with {field.name} {before}, and a resumed run keeps "
                f"its config: leave the flag out, or start a new --run"
            )
    moved = arguments.config.data != config.data
    data = arguments.config.data if moved else None
    if procs > 1:
        moved_to = [] if data is None else ["--data", data]
        return _launch(procs, resumed, "--device", arguments.config.device, *moved_to)
    with _world(config) as world:
        device = arguments.config.device
        trainer = Trainer.resume(resumed.path, world=world, data=data, device=device)
        result = _finish(trainer)
        return result if world.first and not launch_env.by_us() else None


def _world(config: TrainConfig) -> World:
    """Return the processes that were started together with this one."""
    world = World.from_environment(
        config.parallel.backend,
        config.parallel.timeout_s,
        device=partial(resolve_device, config.device),
    )
    if not world.first:
        terminal.silence()
    return world


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


def _without_lists(config: TrainConfig, flags: Sequence[str]) -> TrainConfig:
    """Empty the lists that flags add to, so that what a resumed run is told again counts once."""
    names = {flag.partition("=")[0].removeprefix("--").removeprefix("prepare.") for flag in flags}
    given = {name: () for name in ("label", "category", "missing") if name in names}
    return replace(config, prepare=replace(config.prepare, **given))


def _run_flag(flags: list[str]) -> Path:
    if path := take_value(list(flags), "--run"):
        return Path(path)
    raise ConfigError("--resume needs the run directory: --run RUN")


def _finish(trainer: Trainer) -> TrainResult:
    """Train a run to its end, and write its report."""
    trainer.finish()
    if trainer.world.first:
        with suppress(MissingExtraError):
            reporting.write(trainer.run.path)
    trainer.world.barrier()
    return result_of(trainer.run)
