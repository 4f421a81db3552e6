"""The interaction of vectors, and parts of an MLP's backward pass."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dlrm.ops.cpu import library


def dot_interaction(x: Tensor, e: Tensor, self_interaction: bool) -> Tensor:
    """Return x and the dot product of every pair; see `reference.dot_interaction`."""
    return _Dot.apply(x.contiguous(), e.contiguous(), self_interaction)


class _Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, e: Tensor, self_interaction: bool) -> Tensor:
        ctx.save_for_backward(x, e)
        ctx.self_interaction = self_interaction
        batch, tables, dim = e.shape
        pairs = (tables + 1) * (tables + 2 if self_interaction else tables) // 2
        out = x.new_empty(batch, dim + pairs)
        library.native.dot_interaction(
            x.data_ptr(), x.dtype == torch.bfloat16, e.data_ptr(), e.dtype == torch.bfloat16,
            batch, tables, dim, self_interaction, out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, e = ctx.saved_tensors
        grad = grad.contiguous()
        batch, tables, dim = e.shape
        dx, de = torch.empty_like(x), torch.empty_like(e)
        library.native.dot_interaction_gradient(
            x.data_ptr(), x.dtype == torch.bfloat16, e.data_ptr(), e.dtype == torch.bfloat16,
            grad.data_ptr(), batch, tables, dim, ctx.self_interaction, dx.data_ptr(),
            de.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return dx, de, None


def relu_gradient(grad: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the gradient before a ReLU, and its sum; see `reference.relu_gradient`."""
    grad = grad.contiguous()
    y = None if y is None else y.contiguous()
    batch, width = grad.shape
    out, total = torch.empty_like(grad), torch.empty(width)
    library.native.relu_gradient(
        grad.data_ptr(), None if y is None else y.data_ptr(), grad.dtype == torch.bfloat16,
        batch, width, out.data_ptr(), total.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out, total
