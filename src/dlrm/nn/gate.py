"""Feature gating: how much each input counts."""

import torch
from torch import Tensor, nn

from dlrm.nn.mlp import MLP
from dlrm.nn.precision import ComputeDtype


class Gate(nn.Module):
    """`x * 2 sigmoid(mlp(context))`, elementwise: an input counts between not at all and twice.

    Args:
        width: Inputs of x.
        context: Numbers of the context.
        hidden: Hidden size of the MLP.
        given: Whether each sample brings its context; else it is learnt, and the same for all.
        dtype: Number format of the MLP's products, see `dlrm.nn.mlp`.

    Source: Mao et al., "FinalMLP: An Enhanced Two-Stream MLP Model for CTR Prediction", arXiv
    2304.00902.

    """

    def __init__(
        self,
        width: int,
        context: int,
        hidden: int,
        *,
        given: bool,
        dtype: ComputeDtype = "fp32",
    ):
        super().__init__()
        self.context = None if given else nn.Parameter(torch.randn(1, context))
        self.mlp = MLP([context, hidden, width], relu_last=False, dtype=dtype)

    def forward(self, x: Tensor, given: Tensor | None) -> Tensor:
        """Map x (B, width) and the given context (B, context), or None, to (B, width)."""
        return x * (2 * torch.sigmoid(self.mlp(given if self.context is None else self.context)))
