"""Our training step, as the training loop does it."""

import torch

from dlrm import optim
from dlrm.batch import Batch
from dlrm.bench.arch import Arch
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.precision import ComputeDtype
from dlrm.ops import backend
from dlrm.ops.memory import keep_freed_memory
from dlrm.training.loss import bce


def learning_rate(optimizer: str) -> float:
    """Return a rate that an optimizer trains well with; no speed depends on it."""
    return {"sgd": 0.1, "adam": 0.001}.get(optimizer, 0.01)


class Ours:
    """A model and its optimizer.

    Args:
        arch: Model and tables.
        precision: Of the MLPs' products.
        optimizer: One of `dlrm.optim.OPTIMIZERS`.

    """

    def __init__(self, arch: Arch, precision: ComputeDtype, optimizer: str):
        # As the training loop does; whoever runs beside in this process has the good of it too.
        keep_freed_memory()
        torch.manual_seed(0)
        self.model = arch.model.build(arch.schema, precision)
        self.optimizer = optim.build(optimizer, self.model.parameters(), learning_rate(optimizer))

    def step(self, batch: Batch) -> float:
        """Train on a batch and return its loss."""
        loss = bce(self.model(batch), batch.labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def check_ids(self, batch: Batch) -> int:
        """Turn ids into rows of the stacked tables, checking each: a part of every lookup.

        Returns:
            The place of the first wrong id; -1 when all are right.

        """
        tables = self.model.embeddings
        assert isinstance(tables, EmbeddingCollection)
        return backend(tables.weight).rows_of(batch.ids, tables.starts, tables.sizes)[1]
