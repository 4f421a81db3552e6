"""xDeepFM: logistic regression, a compressed interaction network and an MLP.

    logit = lr(dense, ids) + w . cin(e_1, ..., e_T) + mlp([dense, e_1, ..., e_T])

The interaction network (`dlrm.nn.cin`) crosses the embeddings; dense features, which the paper
turns into ids, are in the other two parts.

Source: Lian et al., "xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender
Systems", arXiv 1803.05170.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.lr import LR
from dlrm.nn.cin import CIN
from dlrm.nn.embedding import Embeddings
from dlrm.nn.linear import Linear
from dlrm.nn.mlp import MLP
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class XDeepFM(nn.Module):
    """First-order weights, and embeddings that an interaction network and an MLP share.

    Args:
        num_dense: N, dense features.
        weights: First-order weights of the T categorical features: embeddings of dimension 1.
        embeddings: Their vectors, of dimension D.
        cin: Vectors of each layer of the interaction network.
        deep: Hidden sizes of the MLP; a last layer to the logit follows.
        dropout: Share of the MLP's hidden units dropped in training.
        batch_norm: Whether its hidden layers are normalized.
        precision: Of all products but the last ones, see `dlrm.nn.mlp`.

    """

    def __init__(
        self,
        num_dense: int,
        weights: Embeddings,
        embeddings: Embeddings,
        *,
        cin: Sequence[int],
        deep: Sequence[int],
        dropout: float = 0.0,
        batch_norm: bool = False,
        precision: ComputeDtype = "fp32",
    ):
        super().__init__()
        tables = len(embeddings.rows)
        self.linear = LR(num_dense, weights)
        self.embeddings = embeddings
        self.cin = CIN(tables, cin, precision=precision)
        self.last = Linear(self.cin.width, 1, bias=False)
        self.deep = MLP(
            [num_dense + tables * embeddings.dim, *deep, 1],
            relu_last=False,
            precision=precision,
            dropout=dropout,
            batch_norm=batch_norm,
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B,)."""
        e = self.embeddings(batch.ids, batch.offsets)
        deep = self.deep(torch.cat([batch.dense, e.flatten(1)], dim=1))
        return self.linear(batch) + (self.last(self.cin(e)) + deep).squeeze(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class XDeepFMConfig:
    """An xDeepFM."""

    name: Literal["xdeepfm"] = "xdeepfm"
    """The model."""
    dim: int = 16
    """Embedding dimension."""
    cin: tuple[int, ...] = (128, 128)
    """Vectors of each layer of the interaction network; one more layer raises the degree by one."""
    deep: tuple[int, ...] = (400, 400)
    """Hidden sizes of the MLP; a last layer to the logit follows."""
    dropout: float = 0.0
    """Share of the MLP's hidden units dropped in training."""
    batch_norm: bool = False
    """Whether the MLP's hidden layers are normalized."""
    tables: TablesConfig = field(default_factory=lambda: TablesConfig(init_std=0.01))
    """The embedding tables; the first-order weights are stored alike, and start at 0."""

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError(f"model.dim is {self.dim}: it must be positive")
        for name in ("cin", "deep"):
            if any(size < 1 for size in getattr(self, name)):
                raise ConfigError(f"model.{name} is {getattr(self, name)}: sizes must be positive")
        if not self.cin:
            raise ConfigError("model.cin is (): one layer at least is needed; without, take deepfm")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}: at least 0 and below 1 is needed")

    def build(self, schema: Schema, precision: ComputeDtype = "fp32") -> XDeepFM:
        """Return the model for data of this schema, with fresh parameters.

        Raises:
            ConfigError: The schema has no categorical feature.

        """
        if not schema.categorical:
            raise ConfigError("xdeepfm crosses categorical features, and the data have none")
        return XDeepFM(
            len(schema.dense),
            self.tables.build(schema.rows, 1, schema.names),
            self.tables.build(schema.rows, self.dim, schema.names),
            cin=self.cin,
            deep=self.deep,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
            precision=precision,
        )
