"""DeepFM: a factorization machine and an MLP over the same embeddings.

    logits = fm(x, e) + mlp([x, e_1, ..., e_T])

The MLP takes the dense features as they are: the paper's vectors x_i v_i are a linear map of them,
which its first layer holds anyway.

Source: Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction",
IJCAI 2017, arXiv 1703.04247.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.models.deep import DeepConfig
from dlrm.models.lr import LR
from dlrm.nn.factorization import SecondOrder
from dlrm.nn.numbers import Numbers
from dlrm.nn.precision import ComputeDtype
from dlrm.schema import Schema


class DeepFM(nn.Module):
    """First-order weights, second-order factors, and an MLP that shares the factors."""

    def __init__(self, schema: Schema, config: "DeepFMConfig", dtype: ComputeDtype = "fp32"):
        super().__init__()
        self.linear = LR(schema, config.tables)
        self.embeddings = config.tables.build(schema, config.dim * schema.num_labels)
        self.numbers = Numbers(schema)
        self.pairs = SecondOrder(self.numbers.width, config.dim, schema.num_labels)
        width = self.numbers.width + len(schema.features) * self.embeddings.dim
        self.deep = config.mlp([width, *config.deep, schema.num_labels], dtype)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        x, e = self.numbers(batch.dense), self.embeddings(batch)
        deep = self.deep(torch.cat([x, e.flatten(1)], dim=1))
        return self.linear(batch) + self.pairs(x, e) + deep


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepFMConfig(DeepConfig):
    """A DeepFM; the defaults of the MLP are those of the paper."""

    name: Literal["deepfm"] = "deepfm"
    dim: int = 16
    """Number of factors, which is the embedding dimension."""
    deep: tuple[int, ...] = (400, 400, 400)
    """Hidden sizes of the MLP; a last layer to the logit follows."""

    def __post_init__(self) -> None:
        self.check("dim")

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> DeepFM:
        """Return the model for data of this schema; see `dlrm.models.build`."""
        return DeepFM(schema, self, dtype)
