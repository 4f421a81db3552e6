"""The dot interaction for many tables: with a few combinations of the vectors, not with each."""

from math import sqrt

import torch
from torch import Tensor, nn


class Projection(nn.Module):
    """`[x, v_i . p_j]` where v = (x, e_1 ... e_T) and p = P v, `count` combinations of them.

    (T + 1) * count products in place of the (T + 1) T / 2 of all pairs, which makes the top MLP's
    first layer smaller where there are many tables.

    Args:
        tables: T.
        dim: D.
        count: Rows of P.

    Source: `--arch-project-size` of the distributed benchmarks of the original DLRM; Zhang et al.,
    "Wukong: Towards a Scaling Law for Large-Scale Recommendation", arXiv 2403.02545, calls it the
    optimized FM.

    """

    def __init__(self, tables: int, dim: int, count: int):
        super().__init__()
        vectors = tables + 1
        self.width = dim + vectors * count
        self.weight = nn.Parameter(torch.randn(count, vectors) * sqrt(2 / (count + vectors)))

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Return (B, D + (T + 1) * count)."""
        v = torch.cat([x.to(e.dtype)[:, None], e], dim=1)
        p = self.weight @ v
        products = torch.bmm(v, p.transpose(1, 2))
        return torch.cat([x, products.flatten(1).to(x.dtype)], dim=1)
