"""The run that a command line or a call from Python asks for: a recipe, and what changes it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack, get_args

from dlrm import recipes
from dlrm.commands.flags import take_value
from dlrm.data.features import toml
from dlrm.data.features.features import Features
from dlrm.data.fitting import Known
from dlrm.data.resolve import resolve
from dlrm.data.sources.frame import is_frame
from dlrm.data.store import MANIFEST_FILE, Dataset
from dlrm.errors import ConfigError
from dlrm.metrics import SELECTING
from dlrm.models import another
from dlrm.run import Run
from dlrm.schema import Task
from dlrm.training.config import TrainConfig, from_dict

TASK, LABEL = ("--task", "--prepare.task"), ("--label", "--prepare.label")
DIVIDED = ("--time", "--prepare.time", "--group", "--prepare.group")
SCHEMA = ("--schema", "--prepare.schema")


class Settings(TypedDict, total=False):
    """What changes a recipe in a call from Python, as the flags of these names do."""

    data: Any
    """A path or a frame of pandas or Polars; a frame is prepared at once."""
    label: str | Sequence[str]
    """One column or several."""
    positive: str | None
    """The label that counts as positive, see `dlrm.data.options.PrepareConfig`, as for all that
    follow."""
    task: Task | None
    weight: str | None
    time: str | None
    group: str | None
    schema: Path | str | None
    model: str | None
    """Name of another model than the recipe's."""
    from_run: Path | str | None
    """A run to go on from with new rows, in place of a recipe."""


def going_on(origin: Path | str) -> tuple[str, TrainConfig]:
    """Return the recipe of a run, and the config of one that goes on from it."""
    source = Run.open(origin)
    config = from_dict(source.config)
    # What the columns are, the features of the run say.
    prepare = replace(config.prepare, schema=None)
    return source.recipe, replace(config, from_run=str(source.path), prepare=prepare, data="")


def run_config(
    recipe: Any, config: TrainConfig | None = None, **settings: Unpack[Settings]
) -> tuple[str, TrainConfig]:
    """Return the name of a recipe and the config of its run.

    Args:
        recipe: Its name, a whole config, or data of one's own: a path or a frame.
        config: The whole config, where it is known.
        settings: What changes it.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    data, model, from_run = (settings.get(name) for name in ("data", "model", "from_run"))
    if is_frame(recipe):
        recipe, data = "own", recipe
    elif not isinstance(recipe, TrainConfig):
        name, words = recipes.first_word([str(recipe)])
        recipe, data = name or "demo", words[1] if words else data
    label, schema = settings.get("label", ()), settings.get("schema")
    given: dict[str, Any] = {
        "label": (label,) if isinstance(label, str) and label else tuple(label),
        **{key: settings.get(key) for key in ("positive", "task", "weight", "time", "group")},
        "schema": None if schema is None else str(schema),
    }
    given = {key: value for key, value in given.items() if value not in (None, ())}
    framed, known = is_frame(data), None
    if config is not None:
        name = str(recipe)
    elif from_run is not None:
        name, config = going_on(from_run)
        known = Known(features=Features.load(from_run), grows=True)
        if data is None:
            raise ConfigError("from needs the new rows: --data")
    elif isinstance(recipe, TrainConfig):
        name, config = "custom", recipe
    else:
        flags = [f"--{key}={value}" for key, value in given.items()]
        flags += [] if data is None or framed else [f"--data={data}"]
        name, config = recipe, recipe_config(recipe, flags)
    config = replace(config, prepare=replace(config.prepare, **given))
    if model is not None:
        config = replace(config, model=another(config.model, model), ensemble_models=())
    if framed:
        data = resolve(data, config.prepare, known=known).path
    return name, config if data is None else replace(config, data=str(data))


def recipe_config(recipe: str, flags: list[str]) -> TrainConfig:
    """Return the config of a recipe, from which flags start.

    Args:
        recipe: Its name, or `module:function`.
        flags: Flags of the command. Labels in them replace the recipe's, a column of times or
            groups its split; and where data are of another task than the recipe's, its metric that
            chooses the best model has no meaning.

    Raises:
        ConfigError: There is no such recipe; lists the choices.

    """
    config = recipes.find(recipe)()
    if config.eval.metric not in ("auto", *SELECTING[_task(config, flags)]):
        config = replace(config, eval=replace(config.eval, metric="auto"))
    given = {flag.partition("=")[0] for flag in flags}
    if given.intersection(LABEL):
        config = replace(config, prepare=replace(config.prepare, label=()))
    if given.intersection(DIVIDED):
        config = replace(config, prepare=replace(config.prepare, split="auto"))
    return config


def _task(config: TrainConfig, flags: list[str]) -> Task:
    """Return what the labels are, as far as flags, a schema or a prepared dataset say it."""
    if (word := _value(flags, TASK)) is not None:
        # Of a word that is no task the parser speaks.
        return next((task for task in get_args(Task) if task == word), "classification")
    data = _value(flags, ("--data",)) or config.data
    if (Path(data) / MANIFEST_FILE).is_file():
        return Dataset.open(Path(data)).schema.task
    schema = _value(flags, SCHEMA) or config.prepare.schema
    if schema is not None:
        return toml.load(Path(schema)).task
    return config.prepare.task or "classification"


def _value(flags: list[str], names: tuple[str, ...]) -> str | None:
    return next((value for name in names if (value := take_value(list(flags), name))), None)


def with_model(config: TrainConfig, flags: list[str]) -> TrainConfig:
    """Return the config with the model that `--model NAME` asks for, and take that flag away.

    Args:
        config: Config of the recipe, whose settings the other model keeps where it has them.
        flags: Flags of the command; `--model` is removed.

    Raises:
        ConfigError: There is no such model; lists the choices.

    """
    name = take_value(flags, "--model")
    if name is None:
        return config
    return replace(config, model=another(config.model, name), ensemble_models=())
