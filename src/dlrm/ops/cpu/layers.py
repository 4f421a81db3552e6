"""The interaction of vectors, parts of an MLP's backward pass, and the loss."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dlrm.ops.cpu import library
from dlrm.ops.reference import layers as plain


def dot_interaction(x: Tensor, e: Tensor, self_interaction: bool) -> Tensor:
    """Return x and the dot product of every pair; see `reference.dot_interaction`."""
    x, e = x.contiguous(), e.contiguous()
    if not torch.is_grad_enabled():
        return _dots(x, e, self_interaction)
    return _Dot.apply(x, e, self_interaction)


def _dots(x: Tensor, e: Tensor, self_interaction: bool) -> Tensor:
    batch, tables, dim = e.shape
    pairs = (tables + 1) * (tables + 2 if self_interaction else tables) // 2
    out = x.new_empty(batch, dim + pairs)
    library.native.dot_interaction(
        x.data_ptr(), x.dtype == torch.bfloat16, e.data_ptr(), e.dtype == torch.bfloat16,
        batch, tables, dim, self_interaction, out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out


class _Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, e: Tensor, self_interaction: bool) -> Tensor:
        ctx.save_for_backward(x, e)
        ctx.self_interaction = self_interaction
        return _dots(x, e, self_interaction)

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


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean binary cross-entropy; see `reference.bce`.

    Unlike torch's it opens no region of OpenMP, whose threads would then wait awake for the next
    one on the cores that the kernels' own threads need.
    """
    if not logits.dtype == labels.dtype == torch.float32 or logits.numel() == 0:
        return plain.bce(logits, labels)
    return _CrossEntropy.apply(logits, labels)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        if logits.shape != labels.shape:
            raise ValueError(f"labels are {tuple(labels.shape)}, expected {tuple(logits.shape)}")
        logits, labels = logits.contiguous(), labels.contiguous()
        grad = torch.empty_like(logits)
        mean = library.native.bce(
            logits.data_ptr(), labels.data_ptr(), logits.numel(), grad.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        ctx.save_for_backward(grad)
        return torch.tensor(mean, dtype=torch.float32)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (of_logits,) = ctx.saved_tensors
        return of_logits * grad, None
