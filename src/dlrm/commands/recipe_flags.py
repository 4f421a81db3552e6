"""Flags that change which other flags there are, and what these start from."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from dlrm import recipes
from dlrm.commands.flags import take_value
from dlrm.data.features import toml
from dlrm.data.store import MANIFEST_FILE, Dataset
from dlrm.metrics import SELECTING
from dlrm.models import another
from dlrm.schema import Task
from dlrm.training.config import TrainConfig

TASK, LABEL = ("--task", "--prepare.task"), ("--label", "--prepare.label")
DIVIDED = ("--time", "--prepare.time", "--group", "--prepare.group")
SCHEMA = ("--schema", "--prepare.schema")


def recipe_config(recipe: str, flags: list[str]) -> TrainConfig:
    """Return the config of a recipe, from which flags start.

    Args:
        recipe: Its name, or `module:function`.
        flags: Of the command. Labels in them stand in place of the recipe's, a column of times or
            groups in place of its split; and where data are of another task than the recipe's, its
            metric that chooses the best model has no meaning.

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
        config: Of the recipe, whose settings the other model keeps where it has them.
        flags: Of the command; `--model` is removed.

    Raises:
        ConfigError: There is no such model; lists the choices.

    """
    name = take_value(flags, "--model")
    if name is None:
        return config
    return replace(config, model=another(config.model, name), ensemble_models=())
