"""Flags that change which other flags there are, and what these start from."""

from dataclasses import replace

from dlrm import recipes
from dlrm.commands.flags import take_value
from dlrm.models import another
from dlrm.training.config import METRICS, TrainConfig

TASK, LABEL = ("--task", "--prepare.task"), ("--label", "--prepare.label")


def recipe_config(recipe: str, flags: list[str]) -> TrainConfig:
    """Return the config of a recipe, from which flags start.

    Args:
        recipe: Its name, or `module:function`.
        flags: Of the command. Labels in them stand in place of the recipe's, and where they name
            another task than the recipe's, its metric that chooses the best model has no meaning.

    Raises:
        ConfigError: There is no such recipe; lists the choices.

    """
    config = recipes.find(recipe)()
    task = next(
        (value for name in TASK if (value := take_value(list(flags), name))), config.prepare.task
    )
    if task in METRICS and config.eval.metric not in METRICS[task]:
        config = replace(config, eval=replace(config.eval, metric="auto"))
    if any(flag.partition("=")[0] in LABEL for flag in flags):
        config = replace(config, prepare=replace(config.prepare, label=()))
    return config


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
