"""FM, the factorization machine: logistic regression plus a weight for each pair of features.

    logits = b + w . x + sum_t w_t[id_t]  +  sum_(i<j) <a_i, a_j>

where a is x_i v_i of a dense feature and the embedding v_t[id_t] of a categorical one. The weight
of a pair is the dot product of its two vectors, so it is known even where the pair was never seen.

Source: Rendle, "Factorization Machines", ICDM 2010.
"""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.lr import LR
from dlrm.nn.factorization import SecondOrder
from dlrm.nn.numbers import Numbers
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class FM(nn.Module):
    """First-order weights and second-order factors, of each label."""

    def __init__(self, schema: Schema, config: "FMConfig"):
        super().__init__()
        self.linear = LR(schema, config.tables)
        self.embeddings = config.tables.build(schema, config.dim * schema.num_labels)
        self.numbers = Numbers(schema)
        self.pairs = SecondOrder(self.numbers.width, config.dim, schema.num_labels)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        pairs = self.pairs(self.numbers(batch.dense), self.embeddings(batch))
        return self.linear(batch) + pairs


@dataclass(frozen=True, kw_only=True, slots=True)
class FMConfig:
    """A factorization machine.

    Fresh factors are smaller in large tables, so that rare ids begin with little say: on the
    generated log that is better than the same start for all.
    """

    name: Literal["fm"] = "fm"
    """The model."""
    dim: int = 16
    """Number of factors."""
    tables: TablesConfig = field(default_factory=TablesConfig)
    """The factors of the ids; their first-order weights are stored alike, and start at 0."""

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError(f"model.dim is {self.dim}: it must be positive")

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> FM:
        """Return the model for data of this schema, always in float32; see `dlrm.models.build`."""
        del dtype
        return FM(schema, self)
