"""Cross networks: each layer multiplies x_0 by something linear in x_l, one degree more.

Legend: x_0 (B, n) the inputs, L layers.
"""

from math import sqrt

import torch
from torch import Tensor, nn

from dlrm.nn.linear import Linear
from dlrm.nn.precision import ComputeDtype


class VectorCross(nn.Module):
    """`x_{l+1} = x_0 (w_l . x_l) + b_l + x_l`, with a vector w_l a layer.

    No x_l between is computed. Each is a multiple of x_0 plus a constant, `x_l = a_l x_0 + c_l`,
    where a_l is a number per sample and c_l is the sum of the biases so far, the same for all:

        a_{l+1} = a_l + a_l (w_l . x_0) + w_l . c_l,    c_{l+1} = c_l + b_l

    so that all products with x_0 are a single one, and x_0 is read twice instead of L times.

    Source: Wang et al., "Deep & Cross Network for Ad Click Predictions", arXiv 1708.05123.
    """

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(layers, width) * sqrt(1 / width))
        self.bias = nn.Parameter(torch.zeros(layers, width))

    def forward(self, x0: Tensor) -> Tensor:
        """Map (B, n) to (B, n)."""
        dots = x0 @ self.weight.t()
        shifts = self.bias.cumsum(dim=0) - self.bias
        offsets = (self.weight * shifts).sum(dim=1)
        a = torch.ones_like(dots[:, 0])
        for dot, offset in zip(dots.unbind(1), offsets.unbind(0), strict=True):
            a = torch.addcmul(a + offset, a, dot)
        return torch.addcmul(self.bias.sum(dim=0), a[:, None], x0)


class MatrixCross(nn.Module):
    """`x_{l+1} = x_0 * (W_l x_l + b_l) + x_l`, with a matrix W_l a layer; * is elementwise.

    A `rank` r > 0 makes each W_l a product U_l V_l^T of n x r matrices; 0 leaves it whole. Products
    are of `dtype`, and x_l stays float32.

    Source: Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale
    Learning to Rank Systems", arXiv 2008.13535.
    """

    def __init__(self, width: int, layers: int, *, rank: int = 0, dtype: ComputeDtype = "fp32"):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                Linear(width, rank, bias=False, dtype=dtype),
                Linear(rank, width, dtype=dtype),
            )
            if rank
            else Linear(width, width, dtype=dtype)
            for _ in range(layers)
        )

    def forward(self, x0: Tensor) -> Tensor:
        """Map (B, n) to (B, n)."""
        x = x0
        for layer in self.layers:
            x = torch.addcmul(x, x0, layer(x))
        return x
