"""How good a model is on the test rows, and what it reads for a sample."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from dlrm.data.store import Split
from dlrm.metrics import Values
from dlrm.metrics.resample import Blocks, click_rows
from dlrm.nn.embedding import EmbeddingCollection, embeddings_of
from dlrm.nn.hashed import HashedEmbeddings
from dlrm.nn.quantized import QuantizedCollection
from dlrm.schema import Schema
from dlrm.training.evaluate import measured, predict_split


@dataclass(frozen=True, slots=True)
class Scores:
    """The metrics of a model on all test rows, and its AUC on resamples of them."""

    values: Values
    resampled: NDArray[np.float64]
    """(R,) AUC on each resample, the same resamples for all models."""

    def value(self, metric: str) -> float:
        """Return a metric, which must be defined."""
        return self.values.require(metric)


def score(model: nn.Module, split: Split, schema: Schema, batch_size: int) -> Scores:
    """Return how good a model is on a split, by its first label.

    Raises:
        DivergedError: A score is no number.

    """
    predictions = predict_split(model, split, batch_size)
    values = measured(predictions, schema)
    logits, labels, _ = predictions.arrays()
    rows = click_rows(logits[:, 0], labels[:, 0])
    return Scores(values.first, Blocks(len(labels), None).resampled(rows)["auc"])


def read_bytes(model: nn.Module, pooling: Mapping[str, float]) -> float:
    """Return the bytes of table rows that a sample reads, codes and scales included.

    Args:
        model: With tables of any kind.
        pooling: Mean ids that a sample has of each feature, by its name; 1 where none is given.

    """
    hashes = {
        id(module.tables): module.hashes
        for module in model.modules()
        if isinstance(module, HashedEmbeddings)
    }
    return sum(
        # Such a one holds its rows and nothing else.
        part.size_bytes / sum(part.layout.sizes) * hashes.get(id(part), 1) * pooling.get(name, 1.0)
        for part in model.modules()
        if isinstance(part, EmbeddingCollection | QuantizedCollection)
        for name in part.names
    )


def tables_bytes(model: nn.Module) -> int:
    """Return the bytes of all tables, as a checkpoint holds them."""
    return sum(part.size_bytes for part in embeddings_of(model))
