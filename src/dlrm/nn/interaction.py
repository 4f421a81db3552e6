"""How the dense vector x and the embeddings e_1 ... e_T meet.

Each interaction maps x (B, D) and e (B, T, D) to the input of the top MLP (B, width).
"""

import torch
from torch import Tensor, nn

from dlrm.errors import unknown
from dlrm.nn.projection import Projection
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
