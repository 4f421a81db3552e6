"""MF, matrix factorization: two ids, each with a bias and a vector of latent factors.

    logit = b + b_u + b_i + <p_u, q_i>          of user u and item i

It takes two categorical features and ignores all others, dense ones too. Where a feature holds a
bag of ids, its bias and its factors are the sums of theirs.

Source: Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", Computer
42(8), 2009; with a logit in place of a rating.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.nn.concat import select
from dlrm.nn.embedding import Embeddings
from dlrm.nn.factorization import INIT_STD
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class MF(nn.Module):
    """Biases and latent factors of two features; which is the user makes no difference to them.

    Args:
        tables: T, categorical features of a batch.
        fields: Positions of user and item among them, in ascending order.
        biases: Embeddings of these two, of dimension 1; made to start at 0.
        factors: Embeddings of these two, of dimension D.

    """

    fields: Tensor
    """(2,) int64"""

    def __init__(
        self, tables: int, fields: tuple[int, int], biases: Embeddings, factors: Embeddings
    ):
        super().__init__()
        self.tables = tables
        self.register_buffer("fields", torch.tensor(fields), persistent=False)
        self.biases = biases
        self.factors = factors
        self.bias = nn.Parameter(torch.zeros(1))
        biases.start_at_zero()

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B,)."""
        ids, offsets = select(batch.ids, batch.offsets, self.fields, self.tables)
        p, q = self.factors(ids, offsets).unbind(dim=1)
        return self.bias + self.biases(ids, offsets).sum(dim=(1, 2)) + (p * q).sum(dim=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class MFConfig:
    """A matrix factorization."""

    name: Literal["mf"] = "mf"
    """The model."""
    user: str = "user"
    """Categorical column of the user."""
    item: str = "item"
    """Categorical column of the item."""
    dim: int = 16
    """Number of latent factors."""
    tables: TablesConfig = field(default_factory=lambda: TablesConfig(init_std=INIT_STD))
    """The factors of users and items; their biases are stored alike, and start at 0."""

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError(f"model.dim is {self.dim}: it must be positive")
        if self.user == self.item:
            raise ConfigError(f'model.user and model.item are both "{self.user}": mf needs two ids')

    def build(self, schema: Schema, precision: ComputeDtype = "fp32") -> MF:
        """Return the model for data of this schema, with fresh parameters; always in float32.

        Raises:
            ConfigError: The schema lacks the column of the user or that of the item.

        """
        del precision
        for flag, column in (("user", self.user), ("item", self.item)):
            if column not in schema.names:
                raise ConfigError(
                    f'mf needs two ids, and model.{flag} is "{column}", which is no categorical '
                    f"column; choose one of: {', '.join(schema.names) or '(there is none)'}"
                )
        user, item = schema.names.index(self.user), schema.names.index(self.item)
        fields = (user, item) if user < item else (item, user)
        rows, names = [schema.rows[t] for t in fields], [schema.names[t] for t in fields]
        return MF(
            len(schema.names),
            fields,
            self.tables.build(rows, 1, names),
            self.tables.build(rows, self.dim, names),
        )
