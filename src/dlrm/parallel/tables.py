"""The tables of a model, and what else it has to keep.

A model that was built on torch's `meta` device takes no memory and says as much as any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from dlrm.errors import unknown
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.hashed import HashedEmbeddings
from dlrm.optim import OPTIMIZERS
from dlrm.parallel.shards import Table

STATE: dict[str, tuple[int, int]] = {
    "sgd": (0, 0),
    "adagrad": (4, 0),
    "rowwise_adagrad": (0, 4),
    "adam": (8, 0),
}
"""Optimizer -> bytes that it keeps of each number of a table, and of each row."""
DENSE_STATE = {"sgd": 0, "adagrad": 4, "rowwise_adagrad": 4, "adam": 8}
"""Optimizer -> bytes that it keeps of each other parameter."""
STEP_BYTES = {"adam": 8}
"""Optimizer -> bytes that it keeps once."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What a model and its optimizer keep, in bytes, and how many parameters they are."""

    tables: tuple[Table, ...]
    """Of all collections, in the model's order."""
    parameters: int
    """Numbers that are learnt, those of the tables included."""
    weights_bytes: int
    """Of the tables, without optimizer state."""
    dense_bytes: int
    """Of all other parameters."""
    dense_state_bytes: int
    """That the optimizer keeps of them."""
    buffers_bytes: int
    """Of what is kept but not learnt, such as the statistics of batch norms."""

    @property
    def tables_bytes(self) -> int:
        """Of the tables, with optimizer state."""
        return sum(table.size_bytes for table in self.tables)

    @property
    def model_bytes(self) -> int:
        """Of everything but optimizer state."""
        return self.weights_bytes + self.dense_bytes + self.buffers_bytes

    @property
    def state_bytes(self) -> int:
        """Of the optimizer's state."""
        return self.tables_bytes - self.weights_bytes + self.dense_state_bytes

    @property
    def dense_total_bytes(self) -> int:
        """Of everything but the tables, which each rank of a run has."""
        return self.dense_bytes + self.dense_state_bytes + self.buffers_bytes


def contents(
    model: nn.Module, optimizer: str, pooling: Mapping[str, float] | None = None
) -> Contents:
    """Return what a model keeps when an optimizer trains it.

    Args:
        model: On any device, `meta` included.
        optimizer: One of `dlrm.optim.OPTIMIZERS`.
        pooling: Mean ids that a sample has of each feature, by its name; 1 where none is given.

    Raises:
        ConfigError: There is no such optimizer.

    """
    if optimizer not in OPTIMIZERS:
        raise unknown("optimizer", optimizer, OPTIMIZERS)
    parameters = {id(p): p for p in model.parameters()}
    dense = dict(parameters)
    tables: list[Table] = []
    weights_bytes = 0
    for path, collection, hashes in _collections(model):
        dense.pop(id(collection.weight), None)
        weights_bytes += collection.weight.nbytes
        tables += _tables(path, collection, optimizer, pooling or {}, hashes)
    numbers = sum(p.numel() for p in dense.values())
    kept = set(model.state_dict())
    return Contents(
        tables=tuple(tables),
        parameters=sum(p.numel() for p in parameters.values()),
        weights_bytes=weights_bytes,
        dense_bytes=sum(p.nbytes for p in dense.values()),
        dense_state_bytes=DENSE_STATE[optimizer] * numbers + STEP_BYTES.get(optimizer, 0),
        buffers_bytes=sum(b.nbytes for name, b in model.named_buffers() if name in kept),
    )


def _collections(model: nn.Module) -> list[tuple[str, EmbeddingCollection, int]]:
    """Return path and collection of all tables, and how many rows of them an id looks up."""
    hashed = {
        id(module.tables): module.hashes
        for module in model.modules()
        if isinstance(module, HashedEmbeddings)
    }
    return [
        (path, module, hashed.get(id(module), 1))
        for path, module in model.named_modules()
        if isinstance(module, EmbeddingCollection)
    ]


def _tables(
    path: str,
    collection: EmbeddingCollection,
    optimizer: str,
    pooling: Mapping[str, float],
    hashes: int,
) -> list[Table]:
    of_number, of_row = STATE[optimizer]
    stored = collection.weight.dtype.itemsize
    if collection.storage == "split":
        # The optimizer keeps the lower halves.
        stored += torch.int16.itemsize
    return [
        Table(
            name=f"{path}/{name}",
            rows=rows,
            dim=collection.dim,
            row_bytes=collection.dim * (stored + of_number) + of_row,
            pooling=pooling.get(name, 1.0) * hashes,
            may_replicate=collection.storage != "bf16",
            shared_row_bytes=of_row,
        )
        for name, rows in zip(collection.names, collection.rows, strict=True)
    ]
