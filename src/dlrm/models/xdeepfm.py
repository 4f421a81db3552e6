"""xDeepFM: logistic regression, a compressed interaction network and an MLP.

    logits = lr(dense, ids) + w . cin(e_1, ..., e_T) + mlp([dense, e_1, ..., e_T])

The interaction network (`dlrm.nn.cin`) crosses the embeddings; dense features, which the paper
turns into ids, are in the other two parts.

Source: Lian et al., "xDeepFM: Combining Explicit and Implicit Feature Interactions for Recommender
Systems", arXiv 1803.05170.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.deep import DeepConfig
from dlrm.models.lr import LR
from dlrm.nn.cin import CIN
from dlrm.nn.linear import Linear
from dlrm.nn.numbers import Numbers
from dlrm.nn.precision import ComputeDtype
from dlrm.schema import Schema


class XDeepFM(nn.Module):
    """First-order weights, and embeddings that an interaction network and an MLP share.

    The last products are in float32 whatever the dtype.

    Raises:
        ConfigError: The schema has no categorical feature.

    """

    def __init__(self, schema: Schema, config: "XDeepFMConfig", dtype: ComputeDtype = "fp32"):
        super().__init__()
        if not schema.features:
            raise ConfigError("xdeepfm crosses categorical features, and the data have none")
        tables = len(schema.features)
        self.linear = LR(schema, config.tables)
        self.embeddings = config.tables.build(schema, config.dim)
        self.numbers = Numbers(schema)
        self.cin = CIN(tables, config.cin, dtype=dtype)
        self.last = Linear(self.cin.width, schema.num_labels, bias=False)
        self.deep = config.mlp(
            [self.numbers.width + tables * config.dim, *config.deep, schema.num_labels], dtype
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits (B, K)."""
        e = self.embeddings(batch)
        deep = self.deep(torch.cat([self.numbers(batch.dense), e.flatten(1)], dim=1))
        return self.linear(batch) + self.last(self.cin(e)) + deep


@dataclass(frozen=True, kw_only=True, slots=True)
class XDeepFMConfig(DeepConfig):
    """An xDeepFM."""

    name: Literal["xdeepfm"] = "xdeepfm"
    cin: tuple[int, ...] = (128, 128)
    """Vectors of each layer of the interaction network; one more layer raises the degree by one."""
    deep: tuple[int, ...] = (400, 400)
    """Hidden sizes of the MLP; a last layer to the logit follows."""

    def __post_init__(self) -> None:
        self.check("dim", sizes=("cin", "deep"))
        if not self.cin:
            raise ConfigError("model.cin is (): one layer at least is needed; without, take deepfm")

    def build(self, schema: Schema, dtype: ComputeDtype = "fp32") -> XDeepFM:
        """Return the model for data of this schema; see `dlrm.models.build`."""
        return XDeepFM(schema, self, dtype)
