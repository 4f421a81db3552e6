"""`dlrm train`: from data to a trained, evaluated and reported model."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import tyro

from dlrm import recipes, reporting, terminal
from dlrm.commands.flags import parse, take_value
from dlrm.commands.recipe_flags import recipe_config, with_model
from dlrm.commands.run_config import going_on, run_config
from dlrm.commands.train_result import TrainResult, result_of
from dlrm.data.features.column import CROSS_NAME
from dlrm.data.features.features import Features
from dlrm.data.fitting import Known
from dlrm.data.resolve import resolve
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, Interrupted, MissingExtraError, RunError, WorldError
from dlrm.models.wide_deep import WideDeepConfig
from dlrm.nn import precision
from dlrm.parallel import launch_env
from dlrm.parallel.launch import launch
from dlrm.parallel.world import World
from dlrm.recipes.baseline import baseline as baseline_of
from dlrm.run import Run
from dlrm.schema import Task
from dlrm.training import runner
from dlrm.training.build import plan_of, pooling
from dlrm.training.config import TrainConfig, from_dict, to_dict
from dlrm.training.device import DeviceName, resolve_device
from dlrm.training.ensemble import members
from dlrm.training.growth import growth
from dlrm.training.importance import keep_importance
from dlrm.training.rank_zero_first import rank_zero_first
from dlrm.training.refit import refit
from dlrm.training.trees import default_trees


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
        _make_again(Path(run))
        opened = Run.open(Path(run))
        with _world(from_dict(opened.config)) as world:
            return _resume(opened, None, world)
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
        return _start(name, config, Path(run) if run is not None else None, world)


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
    if again and not _make_again(_run_flag(flags)) and recipe and Run.begun(_run_flag(flags)) == {}:
        # It was killed before it had written anything: these words start it.
        flags, again = [flag for flag in flags if flag != "--resume"], False
    resumed = Run.open(_run_flag(flags)) if again else None
    if resumed and recipe not in (None, resumed.recipe):
        raise ConfigError(f"{resumed.path} was started with the recipe {resumed.recipe}")
    words = [*([recipe] if recipe else []), *flags]
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
            return _start_processes(name, words, arguments)
        with _world(arguments.config) as world:
            result = _start(name, arguments.config, arguments.run, world)
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
        return _launch(procs, words, resumed)
    with _world(config) as world:
        result = _resume(resumed, data, world, arguments.config.device)
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


def _start_processes(name: str, words: list[str], arguments: Arguments) -> TrainResult:
    """Prepare what all processes need, then start them."""
    path = fresh(name) if arguments.run is None else arguments.run
    Run.check_new(path)
    check_batch(arguments.config, arguments.procs)
    # What cannot be is said once, here.
    dataset = open_data(arguments.config)
    plan_of(arguments.config, dataset.schema, arguments.procs, pooling(dataset))
    if arguments.run is None:
        words = [*words, "--run", str(path)]
    return _launch(arguments.procs, words, Run(path))


def _launch(procs: int, words: list[str], run: Run) -> TrainResult:
    """Train on several processes of this machine and return what they came to."""
    take_value(words, "--procs")
    status = launch(procs, ["train", *words])
    # What happened has been said by the process that it happened to.
    if status == 130:
        raise Interrupted("")
    if status:
        saved = any((run.path / "checkpoints").glob("step-*"))
        again = f"; go on with: dlrm train --run {run.path} --resume --procs {procs}"
        raise WorldError(f"the run has ended{again if saved else ''}")
    return result_of(run)


def check_batch(config: TrainConfig, world: int) -> None:
    """Raise a ConfigError where batches are too small for so many processes."""
    if config.loader.batch_size < world:
        raise ConfigError(
            f"loader.batch_size is {config.loader.batch_size}, and there are {world} processes: "
            "each needs a sample of every batch; start fewer, or take larger batches"
        )


def _without_lists(config: TrainConfig, flags: Sequence[str]) -> TrainConfig:
    """Empty the lists that flags add to, so that what a resumed run is told again counts once."""
    names = {flag.partition("=")[0].removeprefix("--").removeprefix("prepare.") for flag in flags}
    given = {name: () for name in ("label", "category", "missing") if name in names}
    return replace(config, prepare=replace(config.prepare, **given))


def _make_again(path: Path) -> bool:
    """Make a run directory to its end that a killed process has begun; return whether it was so."""
    begun = Run.begun(path)
    if not begun:
        return False
    with Run.locked(path):
        config = from_dict(begun["config"])
        runner.create(path, begun["recipe"], config, open_data(config))
    return True


def _run_flag(flags: list[str]) -> Path:
    if path := take_value(list(flags), "--run"):
        return Path(path)
    raise ConfigError("--resume needs the run directory: --run RUN")


def _start(recipe: str, config: TrainConfig, path: Path | None, world: World) -> TrainResult:
    check_batch(config, world.size)
    # Asked before the data are prepared, which may take long.
    resolve_device(config.device, world.local_rank, world.local_size)
    path = Path(world.broadcast_object(str(fresh(recipe) if path is None else path)))
    with Run.locked(path, silent=not world.first):
        if world.first:
            Run.check_new(path)
        world.assert_same({"recipe": recipe, **_flat(to_dict(config))})
        # What `auto` means here is part of what a resumed run must repeat, on another machine too.
        config = replace(
            config, precision=world.broadcast_object(precision.resolve(config.precision))
        )
        dataset = rank_zero_first(world, lambda: open_data(config))
        world.assert_same(_meaning(dataset))
        run = runner.create(path, recipe, config, dataset, world)
        models = [member.model for member in members(config)]
        warnings = dict.fromkeys(growth(model, dataset.schema) for model in models)
        for warning in filter(None, warnings if world.first else ()):
            terminal.err.print(warning, soft_wrap=True, highlight=False, markup=False)
        crossed = any(CROSS_NAME in name for name in dataset.schema.feature_names)
        if (
            world.first
            and not crossed
            and any(isinstance(model, WideDeepConfig) and not model.crosses for model in models)
        ):
            terminal.err.print(
                "wide_deep without --model.crosses: its wide part is the first-order weights, and "
                "pairs are left to the MLP"
            )
        return _train(config, dataset, run, world, resume=False)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one, with names such as `optim.lr`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _meaning(dataset: Dataset) -> dict[str, Any]:
    """Return what must be equal in the data of all processes."""
    schema = dataset.schema.to_dict()
    sizes = {name: len(dataset.split(name)) for name in ("train", *runner.HELD_OUT)}
    return {**{f"schema.{key}": value for key, value in schema.items()}, "rows": sizes}


def _resume(
    run: Run, data: str | None, world: World, device: DeviceName | None = None
) -> TrainResult:
    config = from_dict(run.config)
    if device is not None:
        config = replace(config, device=device)
    check_batch(config, world.size)
    run.silent = not world.first
    # Where the data lie, not what the flag said: the working directory may be another one.
    path = Path(run.dataset["path"])
    dataset = rank_zero_first(
        world,
        lambda: Dataset.open(path) if data is None else open_data(replace(config, data=data)),
    )
    world.assert_same({**_flat(to_dict(config)), **_meaning(dataset)})
    if difference := run.schema.difference(dataset.schema):
        raise RunError(
            f"{run.path} was trained on another schema than {dataset.path}: {difference}"
        )
    with Run.locked(run.path, silent=not world.first):
        return _train(config, dataset, run, world, resume=True)


def open_data(config: TrainConfig) -> Dataset:
    """Return the prepared dataset that a config names, preparing it first if it is raw."""
    with terminal.muted(launch_env.by_us()):
        known = None
        if config.from_run is not None:
            if not config.data:
                raise ConfigError("--from needs new rows: --data DATA")
            known = Known(features=Features.load(config.from_run), grows=True)
        return resolve(config.data, config.prepare, known=known)


def fresh(recipe: str) -> Path:
    """Return a new run directory under `runs/`, not yet made."""
    name = f"{recipe.replace(':', '-')}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    # Small runs end within a second.
    names = (name if number == 1 else f"{name}-{number}" for number in count(1))
    return next(path for folder in names if not (path := Path("runs") / folder).exists())


def _train(
    config: TrainConfig, dataset: Dataset, run: Run, world: World, *, resume: bool
) -> TrainResult:
    baseline = trees = None
    if config.baseline:
        # A fresh one: the other run's baseline knows fewer values.
        simpler = replace(baseline_of(config), from_run=None)
        path = run.path / "baseline"
        _, metrics = runner.complete(
            path, "baseline", simpler, dataset, title="baseline", world=world
        )
        baseline = (simpler.model.name, metrics)
        trees = default_trees(dataset, config.seed) if world.first else None
    if config.refit:
        config, dataset = refit(config, dataset, run, world)
    model = runner.fit(config, dataset, run, resume=resume, world=world)
    runner.evaluate(config, dataset, run, model, baseline, world, trees=trees)
    if config.importance:
        keep_importance(config, dataset, run, model, world)
    if world.first:
        with suppress(MissingExtraError):
            reporting.write(run.path)
    world.barrier()
    return result_of(run)
