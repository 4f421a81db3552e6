"""Dense features as the layers of a model take them: piecewise numbers become several.

A dense feature with `bins` holds a position u from 0 to bins: the number lies between the knots
floor(u) and floor(u) + 1, and 0 is missing (`dlrm.data.features.piecewise`). Component t is

    clip(u - t, 0, 1)        t = 0, ..., bins - 1

so that a linear layer over them is a function of the number that is linear between knots, and the
first says whether the number is known.

Source: Gorishniy, Rubachev, Babenko, "On Embeddings for Numerical Features in Tabular Deep
Learning", NeurIPS 2022, arXiv 2203.05556.
"""

import torch
from torch import Tensor, nn

from dlrm.schema import Schema


class Numbers(nn.Module):
    """Dense features (B, N), of which piecewise ones become `bins` components each, as (B, W).

    Args:
        schema: What the data are: N dense features.

    """

    source: Tensor
    """(W,) dense feature of each component"""
    shift: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, schema: Schema):
        super().__init__()
        bins = [feature.bins for feature in schema.dense]
        self.width = sum(max(count, 1) for count in bins)
        """W."""
        self.is_piecewise = any(bins)
        if not self.is_piecewise:
            return
        columns = [(n, t, 0.0, 1.0) for n, count in enumerate(bins) for t in range(count)]
        plain = [(n, 0, -torch.inf, torch.inf) for n, count in enumerate(bins) if not count]
        source, shift, low, high = zip(*sorted(columns + plain), strict=True)
        # No part of a checkpoint, because the schema says it.
        self.register_buffer("source", torch.tensor(source), persistent=False)
        for name, values in (("shift", shift), ("low", low), ("high", high)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, dense: Tensor) -> Tensor:
        """Map (B, N) to (B, W), the components of each feature side by side."""
        if not self.is_piecewise:
            return dense
        x = dense.index_select(1, self.source) - self.shift
        return torch.clamp(x, self.low, self.high)
