"""The data of a run: found or prepared, fit to be learned, and alike on all of its processes."""

from typing import Any

from dlrm import terminal
from dlrm.data.applied import Known
from dlrm.data.features.features import Features
from dlrm.data.resolve import resolve
from dlrm.data.split import SPLITS
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, DatasetError
from dlrm.parallel import launch_env
from dlrm.training.config import TrainConfig


def open_data(config: TrainConfig) -> Dataset:
    """Return the prepared dataset that a config names, preparing it first if it is raw."""
    with terminal.muted(launch_env.by_us()):
        known = None
        if config.from_run is not None:
            if not config.data:
                raise ConfigError("--from needs new rows: --data DATA")
            known = Known(features=Features.load(config.from_run), grows=True)
        return resolve(config.data, config.prepare, known=known)


def check_batch(config: TrainConfig, world: int) -> None:
    """Raise a ConfigError where batches are too small for so many processes."""
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


def meaning(dataset: Dataset) -> dict[str, Any]:
    """Return what must be equal in the data of all processes."""
    schema = dataset.schema.to_dict()
    sizes = {name: len(dataset.split(name)) for name in SPLITS}
    return {**{f"schema.{key}": value for key, value in schema.items()}, "rows": sizes}
