"""What a step is measured of: a model, and batches for it, random or from prepared data."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch

from dlrm.batch import Batch
from dlrm.bench.batches import batches_of, rotation
from dlrm.bench.local_step import fresh_step
from dlrm.data.loader import Loader
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError
from dlrm.nn import precision
from dlrm.ops.memory import keep_freed_memory
from dlrm.planning.arithmetic import arithmetic
from dlrm.planning.facts import free_bytes, machine_bytes
from dlrm.planning.tables import contents
from dlrm.planning.work import Ids, Shape
from dlrm.schema import Schema
from dlrm.terminal import human_bytes
from dlrm.training.config import TrainConfig
from dlrm.training.step import TrainStep

SPARE_BYTES = 500_000_000
"""Memory that is left to libraries and kernels."""
MOST_BATCHES = 512
"""Most batches of prepared data."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A run of which steps are measured.

    Its batches are random, or the training rows of a dataset.
    """

    name: str
    config: TrainConfig
    schema: Schema
    dataset: Dataset | None = None
    ids: Ids = "uniform"
    pooling: int = 1
    """Random ids of a list."""
    varied: bool = False
    """Whether random lists have any number of ids from 1 to `pooling`."""

    def shape(self, batch_size: int) -> Shape:
        """Return what its batches are like; popular ids in data count as those of a power law."""
        features = max(1, len(self.schema.features))
        if self.dataset is not None:
            split = self.dataset.split("train")
            ids = split.ids.size + (0 if split.lists is None else len(split.lists.ids))
            return Shape(batch_size, max(1, ids) / (features * max(1, len(split))), "zipf")
        pooling = (self.pooling + 1) / 2 if self.varied else self.pooling
        lists = len(self.schema.list_features)
        return Shape(batch_size, (features - lists + lists * pooling) / features, self.ids)

    def batches(self, batch_size: int) -> list[Batch]:
        """Return batches that together are larger than the last-level cache, as far as data go.

        Raises:
            ConfigError: The data have fewer rows than a batch.

        """
        if self.dataset is None:
            return rotation(
                self.schema, batch_size, self.ids, pooling=self.pooling, varied=self.varied
            )
        split = self.dataset.split("train")
        if batch_size > len(split):
            raise ConfigError(
                f"batch is {batch_size:,}, but {self.dataset.path} has {len(split):,} training "
                "rows: take a smaller one"
            )
        loader = Loader(split, batch_size=batch_size, shuffle=True)
        return list(islice(_whole(loader, batch_size), self._count(batch_size)))

    def check(self, batch_size: int, *, train: bool) -> None:
        """Return if it fits into memory, asked before anything is allocated.

        Raises:
            ConfigError: It does not; with the numbers.

        """
        with torch.device("meta"):
            model = self.config.model.build(self.schema, precision.resolve(self.config.precision))
        sizes = contents(model, self.config.optim.name)
        cost = arithmetic(model, self.schema)
        tables = sizes.model_bytes + (sizes.state_bytes if train else 0)
        shape = self.shape(batch_size)
        ids = len(self.schema.features) * shape.pooling
        sample = 4 * (len(self.schema.dense) + self.schema.num_labels + ids)
        batches = self._count(batch_size) * batch_size * sample
        step = cost.activations_bytes * batch_size * (2 if train else 1)
        need, free = tables + 3 * batches + step + SPARE_BYTES, free_bytes() or machine_bytes()
        if need > free:
            raise ConfigError(
                f"{self.name} at batch {batch_size:,} needs {human_bytes(need)} "
                f"({human_bytes(tables)} of parameters{' and their state' if train else ''}, "
                f"{human_bytes(step)} of activations), {human_bytes(free)} are free; "
                "--rows-scale 0.1 takes a tenth of the rows of each table"
            )

    def build(self) -> TrainStep:
        """Return the step of a fresh model, as the training loop takes it."""
        keep_freed_memory()
        torch.manual_seed(self.config.seed)
        return fresh_step(self.config, self.schema)

    def _count(self, batch_size: int) -> int:
        """Return how many batches rotate."""
        return batches_of(self.schema, batch_size, self.pooling, MOST_BATCHES)


def _whole(loader: Loader, batch_size: int) -> Iterator[Batch]:
    """Yield full batches, of one epoch."""
    for batch in loader.epoch():
        if len(batch) == batch_size:
            yield batch
