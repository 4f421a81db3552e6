"""Two streams of layers: how much each input counts in one, and how both become logits."""

from math import sqrt

import torch
from torch import Tensor, nn

from dlrm.errors import ConfigError
from dlrm.nn.mlp import MLP
from dlrm.nn.precision import ComputeDtype


class Gate(nn.Module):
    """`x * 2 sigmoid(mlp(context))`, elementwise: an input counts between not at all and twice.

    x has `width` numbers, and the MLP a hidden layer of `hidden`. The context, of so many numbers,
    is `given` by each sample, or learnt and the same for all.

    Source: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", arXiv
    2304.00902.

    """

    def __init__(
        self, width: int, context: int, hidden: int, *, given: bool, dtype: ComputeDtype = "fp32"
    ):
        super().__init__()
        self.context = None if given else nn.Parameter(torch.randn(1, context))
        self.mlp = MLP([context, hidden, width], relu_last=False, dtype=dtype)

    def forward(self, x: Tensor, given: Tensor | None) -> Tensor:
        """Map x (B, width) and the given context (B, context), or None, to (B, width)."""
        return x * (2 * torch.sigmoid(self.mlp(given if self.context is None else self.context)))


class BilinearFusion(nn.Module):
    """`b + w_1 . u + w_2 . v + sum over heads h of u_h^T W_h v_h`, with parameters for each label.

    u_h and v_h are the h-th of H equal pieces of u and v: H matrices instead of one H times as
    large as all of them.

    Source: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", arXiv
    2304.00902.
    """

    def __init__(self, first: int, second: int, heads: int, labels: int = 1):
        super().__init__()
        self.heads = heads
        if first % heads or second % heads:
            raise ConfigError(
                f"{heads} heads do not divide the streams' outputs, {first} and {second}: "
                "give heads that divide both"
            )
        n, k = first // heads, second // heads
        self.weight = nn.Parameter(torch.randn(labels * heads, n, k) * sqrt(2 / (n + k)))
        self.first = nn.Parameter(torch.randn(labels, first) * sqrt(2 / (first + 1)))
        self.second = nn.Parameter(torch.randn(labels, second) * sqrt(2 / (second + 1)))
        self.bias = nn.Parameter(torch.zeros(labels))

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        """Map (B, first) and (B, second) to (B, K)."""
        labels, n = self.bias.shape[0], self.weight.shape[1]
        pieces = u.view(-1, self.heads, n).transpose(0, 1)
        if labels > 1:
            pieces = pieces.repeat(labels, 1, 1)
        # (K*H, B, n) times (K*H, n, k), so that each head is one product.
        uw = (pieces @ self.weight).transpose(0, 1)
        # With w_2 beside it, v is read once a label: v . (w_2 + W^T u).
        of_v = uw.reshape(-1, labels, v.shape[1]) + self.second
        return torch.linalg.vecdot(of_v, v[:, None]) + u @ self.first.t() + self.bias
