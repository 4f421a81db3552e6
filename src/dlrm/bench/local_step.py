"""The training step of this project on one process, as the training loop takes it."""

from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from dlrm.batch import Batch
from dlrm.bench.arch import Arch
from dlrm.models.dlrm import DLRM
from dlrm.models.standardized import Standardized
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.precision import ComputeDtype
from dlrm.ops.memory import keep_freed_memory
from dlrm.optim.config import OptimConfig
from dlrm.parallel.world import ALONE, World
from dlrm.schema import Schema
from dlrm.training.build import build, optimizer_of
from dlrm.training.config import TrainConfig
from dlrm.training.device import resolve_device
from dlrm.training.loss import loss_function
from dlrm.training.step import TrainStep

LEARNING_RATE = 0.01
"""With which every optimizer learns; no speed depends on it."""
LAST_STEP = 1 << 30
"""Last step of the run that measured steps are the first of, as its schedule sees it."""


class LocalStep:
    """`step(batch) -> loss` of a DLRM of some architecture, whose MLPs multiply a `dtype`."""

    def __init__(self, arch: Arch, dtype: ComputeDtype, optimizer: str):
        # As the training loop does; whoever runs beside in this process has the good of it too.
        keep_freed_memory()
        torch.manual_seed(0)
        self.config = TrainConfig(
            model=arch.model,
            optim=OptimConfig(name=optimizer, lr=LEARNING_RATE),
            precision=dtype,
        )
        self.train = fresh_step(self.config, arch.schema)
        assert isinstance(self.train.net, DLRM)
        self.model = self.train.net

    def step(self, batch: Batch) -> float:
        """Train on a batch and return its loss."""
        return self.train(batch).item()

    def check_ids(self, batch: Batch) -> None:
        """Turn ids into rows of the stacked tables, checking each: a part of every lookup.

        Raises:
            IdError: One is out of range.

        """
        tables = self.model.embeddings
        assert isinstance(tables, EmbeddingCollection)
        for block in tables.layout.blocks(batch):
            tables.rows(block)


def fresh_step(config: TrainConfig, schema: Schema, world: World = ALONE) -> TrainStep:
    """Return the training step of a fresh model, as a run of this config takes it."""
    built = build(config, schema, world)
    return train_step(config, schema, built.net, optimizer_of(config, built))


def train_step(
    config: TrainConfig, schema: Schema, net: nn.Module, optimizer: Optimizer
) -> TrainStep:
    """Return a training step of a model with the loss, the schedule and the clipping of a run."""
    deviations = [m.deviation for m in net.modules() if isinstance(m, Standardized)]
    return TrainStep(
        net,
        optimizer,
        loss_function(config.loss, schema.task, next(iter(deviations), None)),
        rate=partial(config.optim.rate, last_step=LAST_STEP),
        clip=config.clip,
        device=resolve_device(config.device),
    )
