"""A model in a file of its own, as somebody outside of the project would write it.

Tests train it as `history_model:HistoryConfig`, which no other file knows; this folder must be on
the module search path.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.nn.mlp import MLP
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class HistoryModel(nn.Module):
    """An MLP over all features, lists summed, and over the newest of each history apart."""

    def __init__(self, schema: Schema, config: "HistoryConfig", dtype: ComputeDtype):
        super().__init__()
        self.embeddings = config.tables.build(schema, config.dim)
        self.histories = [f.name for f in schema.features if f.kind == "sequence"]
        vectors = len(schema.features) + len(self.histories)
        sizes = [len(schema.dense) + vectors * config.dim, config.hidden, schema.num_labels]
        self.mlp = MLP(sizes, relu_last=False, dtype=dtype)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        parts = [batch.dense, self.embeddings(batch).flatten(1)]
        for name in self.histories:
            vectors, offsets = self.embeddings.sequence(batch, name)
            # The newest is the last of each list; zeros where a list is empty.
            padded = torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])
            parts.append(padded[torch.where(offsets.diff() > 0, offsets[1:], 0)])
        return self.mlp(torch.cat(parts, dim=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryConfig:
    """The newest of each history, apart."""

    name: str = "history_model:HistoryConfig"
    dim: int = 8
    """Numbers of an embedding."""
    hidden: int = 16
    """Units of the hidden layer."""
    tables: TablesConfig = field(default_factory=TablesConfig)
    """How tables are stored and start."""

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> HistoryModel:
        """Return the model for data of this schema."""
        return HistoryModel(schema, self, dtype)
