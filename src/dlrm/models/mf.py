"""MF, matrix factorization: two ids, each with a bias and a vector of latent factors.

    logits = b + b_u + b_i + <p_u, q_i>          of user u and item i

It takes two categorical features and ignores all others, dense ones too. Where a feature holds a
list of ids, its bias and its factors are the sums of theirs.

Source: Koren, Bell, Volinsky, "Matrix Factorization Techniques for Recommender Systems", Computer
42(8), 2009; with a logit in place of a rating.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.nn.factorization import INIT_STD
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema


class MF(nn.Module):
    """Biases and latent factors of two features, of each label.

    Raises:
        ConfigError: The schema lacks the column of the user or that of the item.

    """

    def __init__(self, schema: Schema, config: "MFConfig"):
        super().__init__()
        for flag, column in (("user", config.user), ("item", config.item)):
            if column not in schema.feature_names:
                choices = ", ".join(schema.feature_names) or "(there is none)"
                raise ConfigError(
                    f'mf needs two ids, and model.{flag} is "{column}", which is no categorical '
                    f"column; choose one of: {choices}"
                )
        names = [config.user, config.item]
        self.biases = config.tables.build_first_order(schema, names)
        self.factors = config.tables.build(schema, config.dim * schema.num_labels, names)
        self.bias = nn.Parameter(torch.zeros(schema.num_labels))
        self.biases.start_at_zero()

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        p, q = self.factors(batch).unbind(dim=1)
        labels = len(self.bias)
        products = (p * q).view(-1, labels, p.shape[1] // labels).sum(dim=2)
        return self.bias + self.biases(batch).sum(dim=1) + products


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

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> MF:
        """Return the model for data of this schema, always in float32; see `dlrm.models.build`."""
        del dtype
        return MF(schema, self)
