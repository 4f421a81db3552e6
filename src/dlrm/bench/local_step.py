"""The training step of this project on one process, as the training loop takes it."""

from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from dlrm.batch import Batch
from dlrm.bench.arch import Arch
from dlrm.models import build
from dlrm.models.dlrm import DLRM
from dlrm.nn import precision
from dlrm.nn.embedding import EmbeddingCollection, parameter_groups
from dlrm.nn.precision import ComputeDtype
from dlrm.ops.memory import keep_freed_memory
from dlrm.optim.config import OptimConfig
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig
from dlrm.training.device import resolve_device
from dlrm.training.loss import loss_function
from dlrm.training.step import TrainStep

LEARNING_RATE = 0.01
"""With which every optimizer learns; no speed depends on it."""
LAST_STEP = 1 << 30
"""Of the run that measured steps are the first of, as its schedule sees it."""


class LocalStep:
    """`step(batch) -> loss` of a DLRM of some architecture.

    Args:
        arch: Model and tables.
        dtype: Of the MLPs' products.
        optimizer: As for `dlrm.optim.find`.

    """

    def __init__(self, arch: Arch, dtype: ComputeDtype, optimizer: str):
        # As the training loop does; whoever runs beside in this process has the good of it too.
        keep_freed_memory()
        torch.manual_seed(0)
        config = TrainConfig(
            model=arch.model,
            optim=OptimConfig(name=optimizer, lr=LEARNING_RATE),
            precision=dtype,
        )
        model = fresh_model(config, arch.schema)
        assert isinstance(model, DLRM)
        self.model = model
        self.train = train_step(config, arch.schema, model)

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


def fresh_model(config: TrainConfig, schema: Schema) -> nn.Module:
    """Return the model of a run on its device; its numbers depend on torch's generator."""
    dtype = precision.resolve(config.precision)
    return build(config.model, schema, dtype, resolve_device(config.device))


def train_step(
    config: TrainConfig, schema: Schema, net: nn.Module, optimizer: Optimizer | None = None
) -> TrainStep:
    """Return the training step of a run: its loss, its schedule, its clipping.

    Args:
        config: Of the run.
        schema: Of its data.
        net: A fresh model, changed by each step; of several processes, what this one calls.
        optimizer: Of its parameters; None for that of the run, over those of `net`.

    """
    return TrainStep(
        net,
        optimizer or config.optim.build(parameter_groups(net)),
        loss_function(config.loss, schema.task),
        rate=partial(config.optim.rate, last_step=LAST_STEP),
        clip=config.clip,
        device=resolve_device(config.device),
    )
