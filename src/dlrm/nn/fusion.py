"""How the outputs of two streams become one logit."""

from math import sqrt

import torch
from torch import Tensor, nn

from dlrm.errors import ConfigError


class BilinearFusion(nn.Module):
    """`b + w_1 . u + w_2 . v + sum over heads k of u_k^T W_k v_k`.

    u_k and v_k are the k-th of K equal pieces of u and v: K matrices instead of one K times as
    large as all of them.

    Args:
        first: Numbers of u.
        second: Numbers of v.
        heads: K, which divides both.

    Source: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", arXiv
    2304.00902.

    """

    def __init__(self, first: int, second: int, heads: int):
        super().__init__()
        if first % heads or second % heads:
            raise ConfigError(
                f"{heads} heads do not divide the streams' outputs, {first} and {second}: "
                "give heads that divide both"
            )
        n, k = first // heads, second // heads
        self.weight = nn.Parameter(torch.randn(heads, n, k) * sqrt(2 / (n + k)))
        self.first = nn.Parameter(torch.randn(first) * sqrt(2 / (first + 1)))
        self.second = nn.Parameter(torch.randn(second) * sqrt(2 / (second + 1)))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Map (B, first) and (B, second) to (B,)."""
        heads, n, _ = self.weight.shape
        # (K, B, n) times (K, n, k), so that each head is one product.
        uw = u.view(-1, heads, n).transpose(0, 1) @ self.weight
        # With w_2 beside it, v is read once: v . (w_2 + W^T u).
        of_v = uw.transpose(0, 1).flatten(1) + self.second
        return torch.linalg.vecdot(of_v, v) + u @ self.first + self.bias
