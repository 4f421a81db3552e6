"""Wide & Deep: a linear model over ids and crosses of ids, and an MLP over embeddings.

    wide  = b + w . x + sum_t w_t[id_t] + sum_(s,t) w_st[id_s, id_t]
    logits = wide + mlp([x, e_1, ..., e_T])

The crosses (s, t) are pairs of columns that are named in the config. Without any, the wide part is
the first-order weights alone. A cross whose pairs of ids are more than its rows is hashed.

Source: Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016, arXiv 1606.07792.
It trains the wide part with FTRL and the deep part with Adagrad; here one optimizer trains both.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.deep import DeepConfig
from dlrm.models.lr import LR
from dlrm.nn.crosses import Crosses, crossed_schema
from dlrm.nn.numbers import Numbers
from dlrm.nn.precision import ComputeDtype
from dlrm.schema import Schema


class WideDeep(nn.Module):
    """A linear model and an MLP, trained together.

    Raises:
        ConfigError: A cross names a column that the schema lacks, or not two of them; or the deep
            part has nothing to learn from.

    """

    def __init__(self, schema: Schema, config: "WideDeepConfig", dtype: ComputeDtype = "fp32"):
        super().__init__()
        if not config.dim and not schema.dense:
            raise ConfigError("model.dim is 0, but there are no dense features for the deep part")
        self.linear = LR(schema, config.tables)
        self.crosses = None
        if config.crosses:
            crossed = crossed_schema(config.crosses, schema, config.cross_rows)
            self.crosses = Crosses(schema, config.tables.build_first_order(crossed))
        self.embeddings = config.tables.build(schema, config.dim) if config.dim else None
        self.numbers = Numbers(schema)
        width = self.numbers.width + len(schema.features) * config.dim
        self.deep = config.mlp([width, *config.deep, schema.num_labels], dtype)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        wide = self.linear(batch)
        if self.crosses is not None:
            wide = wide + self.crosses(batch)
        x = self.numbers(batch.dense)
        if self.embeddings is not None:
            x = torch.cat([x, self.embeddings(batch).flatten(1)], dim=1)
        return wide + self.deep(x)


@dataclass(frozen=True, kw_only=True, slots=True)
class WideDeepConfig(DeepConfig):
    """A Wide & Deep model; the defaults of the MLP are those of the paper."""

    name: Literal["wide_deep"] = "wide_deep"
    dim: int = 16
    """Embedding dimension of the deep part; 0 leaves it the dense features alone, which is best
    where those say how each value has done so far (log counts, target means)."""
    deep: tuple[int, ...] = (1024, 512, 256)
    """Hidden sizes of the MLP; a last layer to the logit follows."""
    crosses: tuple[str, ...] = ()
    """Pairs of categorical columns for the wide part, such as C1*C2; none: first-order weights
    alone."""
    cross_rows: int = 100_000
    """Most rows of a cross; pairs of ids are hashed to them where they are more."""

    def __post_init__(self) -> None:
        self.check("cross_rows")
        if self.dim < 0:
            raise ConfigError(f"model.dim is {self.dim}: it must not be negative")

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> WideDeep:
        """Return the model for data of this schema; see `dlrm.models.build`."""
        return WideDeep(schema, self, dtype)
