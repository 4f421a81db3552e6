"""LR, logistic regression: the baseline that knows no interactions.

logit = b + w . dense + sum_t w_t[id_t]
"""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.nn.embedding import Embeddings
from dlrm.nn.linear import Linear
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class LR(nn.Module):
    """One weight per dense feature and per id, and a bias; all start at 0.

    Args:
        num_dense: N, dense features.
        embeddings: Of the T categorical features, of dimension 1.

    """

    def __init__(self, num_dense: int, embeddings: Embeddings):
        super().__init__()
        self.embeddings = embeddings
        self.linear = Linear(num_dense, 1)
        # The loss is convex: nothing is gained by a random start, and a rare id's weight stays 0.
        embeddings.start_at_zero()
        nn.init.zeros_(self.linear.weight)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B,)."""
        weights = self.embeddings(batch.ids, batch.offsets)
        return self.linear(batch.dense).squeeze(1) + weights.sum(dim=(1, 2))


@dataclass(frozen=True, kw_only=True, slots=True)
class LRConfig:
    """A logistic regression."""

    name: Literal["lr"] = "lr"
    """The model."""
    tables: TablesConfig = field(default_factory=TablesConfig)
    """The weights of the ids."""

    def __post_init__(self) -> None:
        if self.tables.compression == "mixed_dim":
            raise ConfigError(
                "tables.compression is mixed_dim, but the tables of lr have one number a row: none "
                "can be shorter; choose qr or hash"
            )

    def build(self, schema: Schema, precision: ComputeDtype = "fp32") -> LR:
        """Return the model for data of this schema, with fresh parameters; always in float32."""
        del precision
        return LR(len(schema.dense), self.tables.build(schema.rows, 1, schema.names))
