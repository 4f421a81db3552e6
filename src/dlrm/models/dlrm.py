"""DLRM, the deep-learning recommendation model.

    x = bottom(dense)                        dense features to a vector
    e = embeddings(ids)                      one vector per categorical feature
    logit = top(interaction(x, e))           dot products of all pairs, by default

Without dense features x is a vector that is learnt, the same for all samples: its dot product with
an embedding is a weight of the id, as in logistic regression.

Source: Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation
Systems", arXiv 1906.00091.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.nn.embedding import Embeddings
from dlrm.nn.interaction import interaction as build_interaction
from dlrm.nn.mlp import MLP
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class DLRM(nn.Module):
    """Bottom MLP, embedding tables, interaction, top MLP.

    Args:
        num_dense: N, dense features.
        embeddings: Of the T categorical features; their dimension D is the bottom MLP's output too.
        bottom: Hidden sizes of the bottom MLP; a last layer to D follows. Of no meaning when N is
            0.
        top: Hidden sizes of the top MLP; a last layer to the logit follows.
        interaction: `dot`, `cat`, `sum` or `projection`.
        self_interaction: Whether `dot` also pairs each vector with itself.
        projection: Combinations of the vectors that `projection` pairs them with.
        dropout: Share of the MLPs' hidden units dropped in training.
        batch_norm: Whether their hidden layers are normalized.
        precision: Of the MLPs, see `dlrm.nn.mlp`.

    """

    def __init__(
        self,
        num_dense: int,
        embeddings: Embeddings,
        *,
        bottom: Sequence[int],
        top: Sequence[int],
        interaction: str = "dot",
        self_interaction: bool = False,
        projection: int = 8,
        dropout: float = 0.0,
        batch_norm: bool = False,
        precision: ComputeDtype = "fp32",
    ):
        super().__init__()
        tables, dim = len(embeddings.rows), embeddings.dim
        self.embeddings = embeddings
        # Without inputs all layers before the last would compute a constant, which the bias of the
        # last is by itself; a ReLU would leave it at 0 for good wherever it starts below.
        self.bottom = MLP(
            [num_dense, *(bottom if num_dense else ()), dim],
            relu_last=num_dense > 0,
            precision=precision,
            dropout=dropout,
            batch_norm=batch_norm,
        )
        self.interaction = build_interaction(
            interaction, tables, dim, self_interaction=self_interaction, projection=projection
        )
        self.top = MLP(
            [self.interaction.width, *top, 1],
            relu_last=False,
            precision=precision,
            dropout=dropout,
            batch_norm=batch_norm,
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B,)."""
        x = self.bottom(batch.dense)
        e = self.embeddings(batch.ids, batch.offsets)
        return self.top(self.interaction(x, e)).squeeze(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class DLRMConfig:
    """A DLRM; the defaults are the paper's for Criteo Kaggle."""

    name: Literal["dlrm"] = "dlrm"
    """The model."""
    dim: int = 16
    """Embedding dimension."""
    bottom: tuple[int, ...] = (512, 256, 64)
    """Hidden sizes of the bottom MLP; a last layer to `dim` follows. Of no meaning without dense
    features."""
    top: tuple[int, ...] = (512, 256)
    """Hidden sizes of the top MLP; a last layer to the logit follows."""
    interaction: Literal["dot", "cat", "sum", "projection"] = "dot"
    """How dense vector and embeddings meet."""
    self_interaction: bool = False
    """Whether `dot` also pairs each vector with itself."""
    projection: int = 8
    """Combinations of the vectors that `projection` pairs them with, instead of all pairs."""
    dropout: float = 0.0
    """Share of the MLPs' hidden units that training drops."""
    batch_norm: bool = False
    """Whether hidden layers are normalized over the batch."""
    tables: TablesConfig = field(default_factory=TablesConfig)
    """The embedding tables."""

    def __post_init__(self) -> None:
        for name in ("bottom", "top"):
            if any(size < 1 for size in getattr(self, name)):
                raise ConfigError(f"model.{name} is {getattr(self, name)}: sizes must be positive")
        for name in ("dim", "projection"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}: it must be positive")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}: at least 0 and below 1 is needed")

    def build(self, schema: Schema, precision: ComputeDtype = "fp32") -> DLRM:
        """Return the model for data of this schema, with fresh parameters."""
        return DLRM(
            len(schema.dense),
            self.tables.build(schema.rows, self.dim, schema.names),
            bottom=self.bottom,
            top=self.top,
            interaction=self.interaction,
            self_interaction=self.self_interaction,
            projection=self.projection,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
            precision=precision,
        )
