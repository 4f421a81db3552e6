"""The run that a call from Python asks for, as the command line would read it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlrm import recipes
from dlrm.commands.recipe_flags import recipe_config
from dlrm.data.features.features import Features
from dlrm.data.fitting import Known
from dlrm.data.resolve import resolve
from dlrm.data.sources.frame import is_frame
from dlrm.errors import ConfigError
from dlrm.models import another
from dlrm.run import Run
from dlrm.schema import Task
from dlrm.training.config import TrainConfig, from_dict


def going_on(origin: Path | str) -> tuple[str, TrainConfig]:
    """Return the recipe of a run, and the config of one that goes on from it."""
    source = Run.open(origin)
    config = from_dict(source.config)
    # What the columns are, the features of the run say.
    prepare = replace(config.prepare, schema=None)
    return source.recipe, replace(config, from_run=str(source.path), prepare=prepare, data="")


def run_config(
    recipe: Any,
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
) -> tuple[str, TrainConfig]:
    """Return the name of a recipe and the config of its run.

    Args:
        recipe: Its name, a whole config, or data of one's own: a path or a frame.
        data: A path or a frame; None for the recipe's, or where `recipe` is the data. A frame is
            prepared at once.
        label: One column or several.
        positive: See `dlrm.data.options.PrepareConfig`, as for all that follow.
        task: What labels are.
        weight: A column.
        time: A column.
        group: A column.
        schema: A file.
        model: Name of another model than the recipe's.
        from_run: A run to go on from.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    if is_frame(recipe):
        recipe, data = "own", recipe
    elif not isinstance(recipe, TrainConfig):
        name, words = recipes.first_word([str(recipe)])
        recipe, data = name or "demo", words[1] if words else data
    labels = (label,) if isinstance(label, str) else tuple(label)
    given = {
        "label": labels or None,
        "positive": positive,
        "task": task,
        "weight": weight,
        "time": time,
        "group": group,
        "schema": None if schema is None else str(schema),
    }
    given = {key: value for key, value in given.items() if value is not None}
    framed, known = is_frame(data), None
    if from_run is not None:
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
