"""What a training run takes: memory of a process, and room on disk.

process     libraries and working memory
            + parameters and optimizer state
            + windows of the loader, activations of a step or an evaluation
mapped      files that are read through the memory map, whose pages the system takes back where
            memory is short: the dataset while it is trained on, the best checkpoint at the end
disk        checkpoints that are kept, one more while it is written; the dataset
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dlrm.data.loader import WINDOW_ROWS
from dlrm.data.store import Dataset
from dlrm.planning.arithmetic import Arithmetic
from dlrm.planning.tables import Contents
from dlrm.schema import Schema

if TYPE_CHECKING:
    from dlrm.training.config import TrainConfig

LIBRARIES_BYTES = 270_000_000
"""Resident memory of a process that has imported what trains, where the system does not tell."""
WORKING_BYTES = 160_000_000
"""What threads, kernels, scores of the evaluations and the drawing of the report take besides."""
WINDOWS = 3
"""Windows of the loader in memory: the one that is trained on, the next one, and its copy while it
is mixed."""
SMALL_FILES_BYTES = 20_000
"""Bytes of a checkpoint beside its tensors: headers, torch's generator, the cursor and the sums."""


@dataclass(frozen=True, slots=True)
class Data:
    """Sizes of the dataset of a run."""

    schema: Schema
    samples: dict[str, int]
    """Samples by split."""
    pooling: dict[str, float]
    """Mean ids of a sample by feature; 1 where none is given."""
    dataset_bytes: int | None = None
    """Bytes of the dataset on disk; None where it is not prepared yet."""

    @property
    def lookups(self) -> float:
        """Ids of a sample, on average."""
        return sum(self.pooling.get(name, 1.0) for name in self.schema.feature_names)

    @property
    def disk_bytes(self) -> int:
        """Bytes of the dataset, without its vocabularies where it is not prepared yet."""
        if self.dataset_bytes is not None:
            return self.dataset_bytes
        return round(self.sample_bytes * sum(self.samples.values()))

    @property
    def sample_bytes(self) -> float:
        """Bytes of a sample in a dataset, without a weight."""
        schema = self.schema
        labels = schema.num_labels * (1 if schema.task == "classification" else 4)
        offsets = 8 * len(schema.list_features)
        return 4 * len(schema.dense) + 4 * self.lookups + offsets + labels


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes that a run takes."""

    tables_bytes: int
    """Tables and their optimizer state, on the fullest process."""
    dense_bytes: int
    """All other parameters and their state."""
    activations_bytes: int
    """Activations of a step with its gradients or of an evaluation, whichever has more."""
    loader_bytes: int
    libraries_bytes: int
    """Libraries and working memory."""
    mapped_bytes: int
    """Pages of files, which count as resident until the system wants them back."""
    checkpoint_bytes: int
    """Bytes of one checkpoint."""
    checkpoints_bytes: int
    """Bytes of as many checkpoints as there are at most."""
    dataset_bytes: int

    @property
    def rest_bytes(self) -> int:
        """Memory that a process must have besides tables."""
        return self.dense_bytes + self.activations_bytes + self.loader_bytes + self.libraries_bytes

    @property
    def process_bytes(self) -> int:
        """Memory that a process must have."""
        return self.tables_bytes + self.rest_bytes

    @property
    def resident_bytes(self) -> int:
        """Memory that the system shows at the peak, where it is plenty."""
        return self.process_bytes + self.mapped_bytes

    @property
    def disk_bytes(self) -> int:
        """Checkpoints and dataset."""
        return self.checkpoints_bytes + self.dataset_bytes


def footprint(
    config: "TrainConfig",
    data: Data,
    sizes: Contents,
    cost: Arithmetic,
    *,
    tables_bytes: int,
    world: int = 1,
    libraries_bytes: int | None = None,
) -> Footprint:
    """Return what a run takes on each of W processes, `tables_bytes` of tables on the fullest.

    `libraries_bytes` is what a process has that has imported everything, where that is known.
    """
    averaged = config.average.enabled
    batch = -(-config.loader.batch_size // world)
    most = max(data.samples.values(), default=0)
    held_out = max((rows for name, rows in data.samples.items() if name != "train"), default=0)
    evaluated = -(-min(config.eval.batch_size, held_out) // world)
    checkpoint = sizes.model_bytes * (2 if averaged else 1) + sizes.state_bytes + SMALL_FILES_BYTES
    # Their mean is a copy of the parameters, and so is what it stands for during an evaluation.
    copies = 2 if averaged else 0
    libraries = LIBRARIES_BYTES if libraries_bytes is None else libraries_bytes
    return Footprint(
        tables_bytes=tables_bytes + copies * sizes.weights_bytes // world,
        dense_bytes=sizes.dense_total_bytes + sizes.dense_bytes * (1 + copies),
        activations_bytes=round(max(2 * batch, evaluated) * cost.activations_bytes),
        loader_bytes=round(WINDOWS * min(WINDOW_ROWS, most) * data.sample_bytes),
        libraries_bytes=libraries + WORKING_BYTES,
        mapped_bytes=data.disk_bytes + sizes.model_bytes,
        checkpoint_bytes=checkpoint,
        # The newest ones, the best, and the next while it is written.
        checkpoints_bytes=(config.checkpoint.keep + 2) * checkpoint,
        dataset_bytes=data.disk_bytes,
    )


def dataset_bytes(dataset: Dataset) -> int:
    """Return the bytes of a prepared dataset on disk."""
    return sum(path.stat().st_size for path in dataset.path.rglob("*") if path.is_file())


def resident_bytes() -> int | None:
    """Return the memory that this process has at present; None where the system does not tell."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return None
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
