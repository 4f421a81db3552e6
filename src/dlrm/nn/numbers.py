"""Dense features as the layers of a model take them: piecewise numbers become several, or vectors.

A dense feature with `bins` holds a position u from 0 to bins: the number lies between the knots
floor(u) and floor(u) + 1, and 0 is missing (`dlrm.data.features.piecewise`). Component t is

    clip(u - t, 0, 1)        t = 0, ..., bins - 1

so that a linear layer over them is a function of the number that is linear between knots, and the
first says whether the number is known.

Source: Gorishniy, Rubachev, Babenko, "On Embeddings for Numerical Features in Tabular Deep
Learning", NeurIPS 2022, arXiv 2203.05556.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrm.schema import Schema

STEP_STD = 0.6
"""Standard deviation of a fresh vector's change over all bins of its number."""


class Numbers(nn.Module):
    """Dense features (B, N), of which piecewise ones become `bins` components each, as (B, W)."""

    source: Tensor
    """(W,) dense feature of each component"""
    shift: Tensor
    """(W,) t of each component; 0 for a feature that is not piecewise"""
    low: Tensor
    """(W,) least value: 0, or none for a feature that is not piecewise"""
    high: Tensor
    """(W,) largest value: 1, or none"""

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


class NumberVectors(nn.Module):
    """Dense features (B, N) as vectors (B, N, D), as embeddings are those of ids.

        v_n = relu(b_n + sum_t w_nt component_nt)

    The components are those of `Numbers`. Their weights are summed up to each knot first, so that
    a vector is interpolated between two rows, however many bins its number has.
    """

    start: Tensor
    """(N,) first of each feature's rows"""
    last: Tensor
    """(N,) last bin of each feature"""
    low: Tensor
    """(N,) least share of a bin: 0, or none for a feature that is not piecewise"""
    high: Tensor
    """(N,) largest share of a bin: 1, or none"""

    def __init__(self, schema: Schema, dim: int):
        super().__init__()
        bins = [feature.bins for feature in schema.dense]
        rows = max([1, *bins]) + 1
        self.steps = nn.Parameter(torch.empty(len(bins), rows, dim))
        """(N, 1 + most bins, D): b, then w; features of fewer bins leave the last rows unused."""
        if not self.steps.is_meta:
            for steps, count in zip(self.steps, bins, strict=True):
                nn.init.normal_(steps, std=STEP_STD / max(count, 1) ** 0.5)
        for name, values in (
            ("last", [max(count - 1, 0) for count in bins]),
            ("low", [0.0 if count else -torch.inf for count in bins]),
            ("high", [1.0 if count else torch.inf for count in bins]),
        ):
            # No part of a checkpoint, because the schema says it.
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.register_buffer("start", torch.arange(len(bins)) * rows, persistent=False)

    def forward(self, dense: Tensor) -> Tensor:
        """Map (B, N) to (B, N, D)."""
        at_knots = self.steps.cumsum(dim=1).flatten(0, 1)
        lower = torch.minimum(dense.floor().clamp(min=0), self.last)
        share = torch.clamp(dense - lower, self.low, self.high).to(at_knots.dtype)
        row = lower.long() + self.start
        vectors = F.embedding_bag(
            torch.stack([row, row + 1], dim=-1).view(-1, 2),
            at_knots,
            per_sample_weights=torch.stack([1 - share, share], dim=-1).view(-1, 2),
            mode="sum",
        )
        return torch.relu(vectors).view(*dense.shape, self.steps.shape[2])
