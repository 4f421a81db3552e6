"""Interactions of the dense vector x and the embeddings e_1 ... e_T.

Each interaction maps x (B, D) and e (B, T, D) to the input of the top MLP (B, width).
"""

from math import sqrt

import torch
from torch import Tensor, nn

from dlrm.errors import unknown
from dlrm.ops import backend


class Dot(nn.Module):
    """`[x, v_i . v_j for j < i]` where v = (x, e_1 ... e_T); j <= i with self-interaction."""

    def __init__(self, tables: int, dim: int, *, self_interaction: bool = False):
        super().__init__()
        self.vectors = vectors = tables + 1
        self.pairs = vectors * (vectors + 1 if self_interaction else vectors - 1) // 2
        self.width = dim + self.pairs
        self.self_interaction = self_interaction

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Return (B, D + pairs)."""
        return backend(x).dot_interaction(x, e, self.self_interaction)


class Cat(nn.Module):
    """`[x, e_1, ..., e_T]`."""

    def __init__(self, tables: int, dim: int):
        super().__init__()
        self.width = (tables + 1) * dim

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Return (B, (T + 1) * D)."""
        return torch.cat([x, e.flatten(1)], dim=1)


class Sum(nn.Module):
    """`x + e_1 + ... + e_T`."""

    def __init__(self, dim: int):
        super().__init__()
        self.width = dim

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Return (B, D)."""
        return x + e.sum(dim=1)


class Projection(nn.Module):
    """`[x, v_i . p_j]` where v = (x, e_1 ... e_T) and p = P v, `count` combinations of them.

    (T + 1) * count products in place of the (T + 1) T / 2 of all pairs, which makes the top MLP's
    first layer smaller where there are many tables.

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


def interaction(
    name: str, tables: int, dim: int, *, self_interaction: bool, projection: int = 8
) -> Dot | Cat | Sum | Projection:
    """Return the interaction of that name: `dot`, `cat`, `sum` or `projection`.

    Raises:
        ConfigError: The name is none of these.

    """
    match name:
        case "dot":
            return Dot(tables, dim, self_interaction=self_interaction)
        case "cat":
            return Cat(tables, dim)
        case "sum":
            return Sum(dim)
        case "projection":
            return Projection(tables, dim, projection)
    raise unknown("interaction", name, ("dot", "cat", "sum", "projection"))
