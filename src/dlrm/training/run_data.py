"""The data of a run: found or prepared, fit to be learned, and alike on all of its processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dlrm import terminal
from dlrm.data.features.features import Features
from dlrm.data.fitting import Known
from dlrm.data.resolve import resolve
from dlrm.data.sources.source import OnBadRow
from dlrm.data.split import SPLITS
from dlrm.data.store import Dataset, Split
from dlrm.errors import ConfigError, DatasetError, RunError
from dlrm.parallel import launch_env
from dlrm.parallel.world import World
from dlrm.run import Run
from dlrm.training.config import TrainConfig, from_dict


def open_data(config: TrainConfig) -> Dataset:
    """Return the prepared dataset that a config names, preparing it first if it is raw."""
    with terminal.muted(launch_env.by_us()):
        known = None
        if config.from_run is not None:
            if not config.data:
                raise ConfigError("--from needs new rows: --data DATA")
            known = Known(features=Features.load(config.from_run), grows=True)
        return resolve(config.data, config.prepare, known=known)


def raw_rows(data: Any, run: Run, features: Features, bad_rows: OnBadRow) -> Dataset:
    """Return raw rows as the features of a run encode them, all of them in the split `test`."""
    config = replace(
        from_dict(run.config).prepare,
        split="chronological",
        time=None,
        group=None,
        fractions=(0.0, 0.0, 1.0),
        schema=None,
        bad_rows=bad_rows,
    )
    return resolve(data, config, known=Known(features=features))


def split_of(run: Run, data: Path | str | None, name: str) -> tuple[Dataset, Split]:
    """Return a prepared dataset, the run's own where none is named, and a split of it with rows.

    Raises:
        RunError: It has another schema than the run.
        DatasetError: It is damaged, or the split has no rows.

    """
    dataset = Dataset.open(Path(data if data is not None else run.dataset["path"]))
    check_schema(run, dataset)
    split = dataset.split(name)
    if not len(split):
        raise DatasetError(f"{dataset.path}: the split {name} has no rows")
    return dataset, split


def check_schema(run: Run, dataset: Dataset) -> None:
    """Raise a RunError unless a dataset has the schema that a run was trained on."""
    if difference := run.schema.difference(dataset.schema):
        raise RunError(
            f"{run.path} was trained on another schema than {dataset.path}: {difference}"
        )


def check_batch(config: TrainConfig, world: int) -> None:
    """Raise a ConfigError where batches are too small, or one framework, for so many processes."""
    if config.framework == "jax" and world > 1:
        raise ConfigError(
            f"framework is jax, which trains on one process, and there are {world}: start one, or "
            "take torch"
        )
    if config.loader.batch_size < world:
        raise ConfigError(
            f"loader.batch_size is {config.loader.batch_size}, and there are {world} processes: "
            "each needs a sample of every batch; start fewer, or take larger batches"
        )


def check_trainable(dataset: Dataset) -> None:
    """Raise a DatasetError unless there are training rows, and of clicks both classes."""
    train = dataset.split("train")
    if len(train) == 0:
        raise DatasetError(f"{dataset.path}: the training split has no rows")
    if dataset.schema.task == "regression":
        return
    labels = train.labels if train.weights is None else train.labels[train.weights > 0]
    for place, name in enumerate(dataset.schema.labels):
        column = labels[:, place]
        if not len(column):
            raise DatasetError(f"{dataset.path}: all training rows weigh 0: nothing to learn")
        if column.min() == column.max():
            raise DatasetError(
                f"the label {name} is {column[0]} in all {len(column):,} training rows: nothing "
                "to learn; take more rows, or divide them otherwise (--prepare.split stratified "
                "gives each split its share of every class)"
            )


def check_alike(world: World, **settings: Any) -> None:
    """Raise a ConfigError unless settings, nested or not, are equal on all processes."""

    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        named: dict[str, Any] = {}
        for name, value in values.items():
            nested = isinstance(value, dict)
            named |= flat(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
        return named

    world.assert_same(flat(settings))


def meaning(dataset: Dataset) -> dict[str, Any]:
    """Return what must be equal in the data of all processes, see `check_alike`."""
    rows = {name: len(dataset.split(name)) for name in SPLITS}
    return {"schema": dataset.schema.to_dict(), "rows": rows}
