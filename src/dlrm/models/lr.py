"""LR, logistic regression: the baseline that knows no interactions.

logits = b + w . dense + sum_t w_t[id_t]
"""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.nn.linear import Linear
from dlrm.nn.numbers import Numbers
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class LR(nn.Module):
    """One weight per dense feature, id and label, and a bias per label; all start at 0.

    `tables` says how the weights of the ids are stored.
    """

    def __init__(self, schema: Schema, tables: TablesConfig):
        super().__init__()
        self.numbers = Numbers(schema)
        self.embeddings = tables.build_first_order(schema)
        self.linear = Linear(self.numbers.width, schema.num_labels)
        # The loss is convex: nothing is gained by a random start, and a rare id's weight stays 0.
        self.embeddings.start_at_zero()
        nn.init.zeros_(self.linear.weight)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        return self.linear(self.numbers(batch.dense)) + self.embeddings(batch).sum(dim=1)


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

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> LR:
        """Return the model for data of this schema, always in float32; see `dlrm.models.build`."""
        del dtype
        return LR(schema, self.tables)
