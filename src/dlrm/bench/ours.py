"""Our training step, as the training loop does it."""

import torch

from dlrm import optim
from dlrm.batch import Batch
from dlrm.bench.arch import Arch
from dlrm.nn.precision import Precision
from dlrm.ops.memory import keep_freed_memory
from dlrm.training.loss import bce

LEARNING_RATES = {"sgd": 0.1, "adagrad": 0.01, "rowwise_adagrad": 0.01}
"""Optimizer -> a rate it trains well with; no speed depends on it."""


class Ours:
    """A model and its optimizer.

    Args:
        arch: Model and tables.
        precision: Of the MLPs' products.
        optimizer: `sgd`, `adagrad` or `rowwise_adagrad`.

    """

    def __init__(self, arch: Arch, precision: Precision, optimizer: str):
        # As the training loop does; whoever runs beside in this process has the good of it too.
        keep_freed_memory()
        torch.manual_seed(0)
        self.model = arch.model.build(arch.schema, precision)
        self.optimizer = optim.build(optimizer, self.model.parameters(), LEARNING_RATES[optimizer])

    def step(self, batch: Batch) -> float:
        """Train on a batch and return its loss."""
        loss = bce(self.model(batch), batch.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()
