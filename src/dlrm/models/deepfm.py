"""DeepFM: a factorization machine and an MLP over the same embeddings.

    logit = fm(x, e) + mlp([x, e_1, ..., e_T])

The MLP takes the dense features as they are: the paper's vectors x_i v_i are a linear map of them,
which its first layer holds anyway.

Source: Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction",
IJCAI 2017, arXiv 1703.04247.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.lr import LR
from dlrm.nn.embedding import Embeddings
from dlrm.nn.factorization import INIT_STD, SecondOrder
from dlrm.nn.mlp import MLP
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class DeepFM(nn.Module):
    """First-order weights, second-order factors, and an MLP that shares the factors.

    Args:
        num_dense: N, dense features.
        weights: First-order weights of the T categorical features: embeddings of dimension 1.
        embeddings: Their factors, of dimension D.
        deep: Hidden sizes of the MLP; a last layer to the logit follows.
        dropout: Share of the MLP's hidden units dropped in training.
        batch_norm: Whether its hidden layers are normalized.
        precision: Of the MLP, see `dlrm.nn.mlp`.

    """

    def __init__(
        self,
        num_dense: int,
        weights: Embeddings,
        embeddings: Embeddings,
        *,
        deep: Sequence[int],
        dropout: float = 0.0,
        batch_norm: bool = False,
        precision: ComputeDtype = "fp32",
    ):
        super().__init__()
        self.linear = LR(num_dense, weights)
        self.embeddings = embeddings
        self.pairs = SecondOrder(num_dense, embeddings.dim)
        width = num_dense + len(embeddings.rows) * embeddings.dim
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
        deep = self.deep(torch.cat([batch.dense, e.flatten(1)], dim=1)).squeeze(1)
        return self.linear(batch) + self.pairs(batch.dense, e) + deep


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepFMConfig:
    """A DeepFM; the defaults of the MLP are those of the paper."""

    name: Literal["deepfm"] = "deepfm"
    """The model."""
    dim: int = 16
    """Number of factors, which is the embedding dimension."""
    deep: tuple[int, ...] = (400, 400, 400)
    """Hidden sizes of the MLP; a last layer to the logit follows."""
    dropout: float = 0.0
    """Share of the MLP's hidden units dropped in training."""
    batch_norm: bool = False
    """Whether the MLP's hidden layers are normalized."""
    tables: TablesConfig = field(default_factory=lambda: TablesConfig(init_std=INIT_STD))
    """The factors of the ids; their first-order weights are stored alike, and start at 0."""

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError(f"model.dim is {self.dim}: it must be positive")
        if any(size < 1 for size in self.deep):
            raise ConfigError(f"model.deep is {self.deep}: sizes must be positive")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}: at least 0 and below 1 is needed")

    def build(self, schema: Schema, precision: ComputeDtype = "fp32") -> DeepFM:
        """Return the model for data of this schema, with fresh parameters."""
        return DeepFM(
            len(schema.dense),
            self.tables.build(schema.rows, 1, schema.names),
            self.tables.build(schema.rows, self.dim, schema.names),
            deep=self.deep,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
            precision=precision,
        )
