"""A linear layer, in float32 or with bfloat16 products."""

from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrm.nn.precision import ComputeDtype
from dlrm.ops.products import linear


class Linear(nn.Module):
    """`x -> x W^T + b`; W is drawn from N(0, 2 / (n + k)) for a layer n -> k, b starts at 0.

    For products between elementwise steps; an `MLP` fuses its layers.

    `bf16` rounds both factors and the product to bfloat16 and sums in float32; parameters and
    outputs stay float32.
    """

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool = True, dtype: ComputeDtype = "fp32"
    ):
        super().__init__()
        self.dtype = dtype
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        # A layer without memory has no numbers: torch would import its compiler, for a second.
        if not self.weight.is_meta:
            nn.init.normal_(self.weight, std=sqrt(2 / (inputs + outputs)))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n) to (B, k)."""
        if self.dtype == "bf16":
            return affine(x, self.weight, self.bias, torch.bfloat16)
        if x.dtype == torch.float32:
            return affine(x, self.weight, self.bias, torch.float32)
        return F.linear(x, self.weight, self.bias)


def affine(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    out_dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return `x W^T + b` with its products in `dtype`, backwards too.

    x is (B, n), the weight (k, n) and the bias (k,), or None, are float32; products are summed in
    float32, and come out as `out_dtype`.
    """
    return _Affine.apply(x, weight, bias, dtype, out_dtype)


class _Affine(torch.autograd.Function):
    """Backwards: dx = g W, dW = g^T x, db = 1^T g."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        out_dtype: torch.dtype,
    ) -> Tensor:
        x_, w = x.to(dtype), weight.to(dtype)
        # The weight itself is kept beside its copy so that autograd sees whether it changes.
        ctx.save_for_backward(x_, w, weight)
        ctx.x_dtype = x.dtype
        return linear(x_, w, None if bias is None else bias.to(dtype)).to(out_dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w, _ = ctx.saved_tensors
        g = grads[0].to(x.dtype)
        of_x = linear(g, w.t()).to(ctx.x_dtype) if ctx.needs_input_grad[0] else None
        of_bias = grads[0].sum(dim=0, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        return of_x, (g.t() @ x).float(), of_bias, None, None
