"""DCN, the Deep & Cross Network: a cross network of vectors beside an MLP.

    x_0 = [dense, e_1, ..., e_T]
    x_{l+1} = x_0 (w_l . x_l) + b_l + x_l
    logit = w . x_L + mlp(x_0)

The paper's last layer over both sides' outputs is the sum of w . x_L and the MLP's last layer.

Source: Wang et al., "Deep & Cross Network for Ad Click Predictions", arXiv 1708.05123.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.nn.cross import VectorCross
from dlrm.nn.embedding import Embeddings
from dlrm.nn.linear import Linear
from dlrm.nn.mlp import MLP
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class DCN(nn.Module):
    """Dense features and embeddings side by side, through a cross network and an MLP.

    Args:
        num_dense: N, dense features.
        embeddings: Of the T categorical features, of dimension D.
        cross_layers: L.
        deep: Hidden sizes of the MLP; a last layer to the logit follows.
        dropout: Share of the MLP's hidden units dropped in training.
        batch_norm: Whether its hidden layers are normalized.
        precision: Of the MLP, see `dlrm.nn.mlp`; the cross network is in float32.

    """

    def __init__(
        self,
        num_dense: int,
        embeddings: Embeddings,
        *,
        cross_layers: int,
        deep: Sequence[int],
        dropout: float = 0.0,
        batch_norm: bool = False,
        precision: ComputeDtype = "fp32",
    ):
        super().__init__()
        width = num_dense + len(embeddings.rows) * embeddings.dim
        self.embeddings = embeddings
        self.cross = VectorCross(width, cross_layers)
        self.last = Linear(width, 1, bias=False)
        self.deep = MLP(
            [width, *deep, 1],
            relu_last=False,
            precision=precision,
            dropout=dropout,
            batch_norm=batch_norm,
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B,)."""
        e = self.embeddings(batch.ids, batch.offsets)
        x0 = torch.cat([batch.dense, e.flatten(1)], dim=1)
        return (self.last(self.cross(x0)) + self.deep(x0)).squeeze(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class DCNConfig:
    """A DCN; six cross layers, as the paper found best on Criteo."""

    name: Literal["dcn"] = "dcn"
    """The model."""
    dim: int = 16
    """Embedding dimension."""
    cross_layers: int = 6
    """Layers of the cross network; one more raises the degree by one."""
    deep: tuple[int, ...] = (512, 256)
    """Hidden sizes of the MLP; a last layer to the logit follows."""
    dropout: float = 0.0
    """Share of the MLP's hidden units dropped in training."""
    batch_norm: bool = False
    """Whether the MLP's hidden layers are normalized."""
    tables: TablesConfig = field(default_factory=lambda: TablesConfig(init_std=0.01))
    """The embedding tables."""

    def __post_init__(self) -> None:
        for name in ("dim", "cross_layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}: it must be positive")
        if any(size < 1 for size in self.deep):
            raise ConfigError(f"model.deep is {self.deep}: sizes must be positive")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}: at least 0 and below 1 is needed")

    def build(self, schema: Schema, precision: ComputeDtype = "fp32") -> DCN:
        """Return the model for data of this schema, with fresh parameters."""
        return DCN(
            len(schema.dense),
            self.tables.build(schema.rows, self.dim, schema.names),
            cross_layers=self.cross_layers,
            deep=self.deep,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
            precision=precision,
        )
