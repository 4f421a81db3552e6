"""A model of one's own, all that somebody writes: trained as `own_model:HistoryConfig`.

v(u), v(i)      vectors of user and item
h               mean of v(i) over the history, from the table of items
logits          linear(v(u) * v(i), h * v(i), v(u)), one for each label
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.nn.embedding import bags_of
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class HistoryModel(nn.Module):
    """Products of user, item and history."""

    def __init__(self, schema: Schema, config: "HistoryConfig", dtype: ComputeDtype = "fp32"):
        super().__init__()
        self.embeddings = TablesConfig(init_std=0.1).build(schema, config.dim)
        self.out = nn.Linear(3 * config.dim, schema.num_labels)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        vectors = self.embeddings(batch)
        user, item = (vectors[:, self.embeddings.names.index(name)] for name in ("user", "item"))
        seen = self.embeddings.sequence(batch, "history")
        sample = bags_of(seen.offsets, len(seen.values))
        sums = torch.zeros_like(item).index_add(0, sample, seen.values)
        history = sums / seen.lengths.clamp(min=1)[:, None]
        return self.out(torch.cat([user * item, history * item, user], dim=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryConfig:
    """The model's settings."""

    name: str = "own_model:HistoryConfig"
    dim: int = 8

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> HistoryModel:
        """Return the model, whose tables have no memory yet."""
        return HistoryModel(schema, self, dtype)
