"""DCN, the Deep & Cross Network: a cross network of vectors beside an MLP.

    x_0 = [dense, e_1, ..., e_T]
    x_{l+1} = x_0 (w_l . x_l) + b_l + x_l
    logits = w . x_L + mlp(x_0)

The paper's last layer over both sides' outputs is the sum of w . x_L and the MLP's last layer.

Source: Wang et al., "Deep & Cross Network for Ad Click Predictions", arXiv 1708.05123.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.models.deep import DeepConfig
from dlrm.nn.cross import VectorCross
from dlrm.nn.linear import Linear
from dlrm.nn.numbers import Numbers
from dlrm.nn.precision import ComputeDtype
from dlrm.schema import Schema


class DCN(nn.Module):
    """Dense features and embeddings side by side, through a cross network and an MLP.

    The cross network is in float32 whatever the dtype.
    """

    def __init__(self, schema: Schema, config: "DCNConfig", dtype: ComputeDtype = "fp32"):
        super().__init__()
        self.numbers = Numbers(schema)
        width = self.numbers.width + len(schema.features) * config.dim
        self.embeddings = config.tables.build(schema, config.dim)
        self.cross = VectorCross(width, config.cross_layers)
        self.last = Linear(width, schema.num_labels, bias=False)
        self.deep = config.mlp([width, *config.deep, schema.num_labels], dtype)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        e = self.embeddings(batch)
        x0 = torch.cat([self.numbers(batch.dense), e.flatten(1)], dim=1)
        return self.last(self.cross(x0)) + self.deep(x0)


@dataclass(frozen=True, kw_only=True, slots=True)
class DCNConfig(DeepConfig):
    """A DCN; six cross layers, as the paper found best on Criteo."""

    name: Literal["dcn"] = "dcn"
    cross_layers: int = 6
    """Layers of the cross network; one more raises the degree by one."""
    deep: tuple[int, ...] = (512, 256)
    """Hidden sizes of the MLP; a last layer to the logit follows."""

    def __post_init__(self) -> None:
        self.check("dim", "cross_layers")

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> DCN:
        """Return the model for data of this schema; see `dlrm.models.build`."""
        return DCN(schema, self, dtype)
