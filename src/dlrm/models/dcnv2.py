"""DCN-V2: a cross network of matrices, beside an MLP or below it.

    x_0 = [dense, e_1, ..., e_T]
    x_{l+1} = x_0 * (W_l x_l + b_l) + x_l          W_l = U_l V_l^T where a rank is given
    logits = w . x_L + mlp(x_0)                     parallel
    logits = mlp(x_L)                               stacked

The paper's last layer over both sides' outputs is the sum of w . x_L and the MLP's last layer.

Source: Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale
Learning to Rank Systems", arXiv 2008.13535.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError, unknown
from dlrm.models.deep import DeepConfig
from dlrm.nn.cross import MatrixCross
from dlrm.nn.linear import Linear
from dlrm.nn.numbers import Numbers
from dlrm.nn.precision import ComputeDtype
from dlrm.schema import Schema

Structure = Literal["parallel", "stacked"]


class DCNV2(nn.Module):
    """Dense features and embeddings side by side, through a cross network and an MLP."""

    def __init__(self, schema: Schema, config: "DCNV2Config", dtype: ComputeDtype = "fp32"):
        super().__init__()
        self.numbers = Numbers(schema)
        width = self.numbers.width + len(schema.features) * config.dim
        parallel = config.structure == "parallel"
        self.embeddings = config.tables.build(schema, config.dim)
        self.cross = MatrixCross(width, config.cross_layers, rank=config.rank, dtype=dtype)
        self.last = Linear(width, schema.num_labels, bias=False) if parallel else None
        self.deep = config.mlp([width, *config.deep, schema.num_labels], dtype)

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        e = self.embeddings(batch)
        x0 = torch.cat([self.numbers(batch.dense), e.flatten(1)], dim=1)
        x = self.cross(x0)
        return self.deep(x) if self.last is None else self.last(x) + self.deep(x0)


@dataclass(frozen=True, kw_only=True, slots=True)
class DCNV2Config(DeepConfig):
    """A DCN-V2."""

    name: Literal["dcnv2"] = "dcnv2"
    cross_layers: int = 3
    """Layers of the cross network; one more raises the degree by one."""
    rank: int = 0
    """Rank of the cross network's matrices, which are then products of two; 0 for whole ones."""
    structure: Structure = "parallel"
    """parallel: the MLP sees the inputs; stacked: it sees what the cross network returns."""
    deep: tuple[int, ...] = (512, 256)
    """Hidden sizes of the MLP; a last layer to the logit follows."""

    def __post_init__(self) -> None:
        self.check("dim", "cross_layers")
        if self.rank < 0:
            raise ConfigError(f"model.rank is {self.rank}: 0 for whole matrices, or positive")
        if self.structure not in ("parallel", "stacked"):
            raise unknown("structure", self.structure, ("parallel", "stacked"))

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> DCNV2:
        """Return the model for data of this schema; see `dlrm.models.build`."""
        return DCNV2(schema, self, dtype)
