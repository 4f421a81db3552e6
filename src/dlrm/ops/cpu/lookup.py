"""Lookups: rows of the stacked tables, alone or added up in bags."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dlrm.ops.bag_gradient import BagGradient, Bags
from dlrm.ops.cpu import library
from dlrm.ops.cpu.library import pointer
from dlrm.ops.reference.lookup import sparse_gradient


def rows_of(
    ids: Tensor, starts: Tensor, sizes: Tensor, offsets: Tensor | None = None
) -> tuple[Tensor, int]:
    """Turn ids within a table into rows of the stacked tables; see `reference.rows_of`."""
    ids = ids.contiguous()
    if ids.dtype != torch.int32:
        ids = ids.long()
    if offsets is None:
        at, bags = None, ids.shape[0]
    else:
        offsets = offsets.contiguous().long()
        at, bags = offsets.data_ptr(), offsets.shape[0] - 1
    rows = torch.empty(ids.shape, dtype=torch.int64)
    wrong = library.native.rows_of(
        ids.data_ptr(), ids.dtype == torch.int64, at, starts.data_ptr(), sizes.data_ptr(),
        ids.numel(), bags, starts.shape[0], rows.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return rows, wrong


def lookup(weight: Tensor, rows: Tensor) -> Tensor:
    """Return `weight[rows]`; see `reference.lookup`."""
    rows = rows.contiguous().long()
    return _Lookup.apply(weight, rows) if torch.is_grad_enabled() else _looked_up(weight, rows)


def _looked_up(weight: Tensor, rows: Tensor) -> Tensor:
    dim = weight.shape[1]
    out = torch.empty(*rows.shape, dim)
    library.native.lookup(
        weight.data_ptr(), weight.dtype == torch.bfloat16, rows.data_ptr(), rows.numel(), dim,
        out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = weight.shape
        return _looked_up(weight, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (rows,) = ctx.saved_tensors
        return sparse_gradient(rows, grad, ctx.shape), None


def pooled_lookup(
    weight: Tensor,
    rows: Tensor,
    offsets: Tensor,
    per_sample_weights: Tensor | None = None,
) -> Tensor:
    """Return the sum of the rows of each bag; see `reference.pooled_lookup`."""
    scale = None if per_sample_weights is None else per_sample_weights.float().contiguous()
    offsets = offsets.contiguous().long()
    bags = (offsets[:-1], offsets[1:])
    return _Pooled.apply(weight, rows.contiguous().long(), *bags, scale)


def pooled_ranges(weight: Tensor, rows: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Return the sum of the rows of each bag, wherever it lies; see `reference.pooled_ranges`."""
    bags = (starts.contiguous().long(), ends.contiguous().long())
    return _Pooled.apply(weight, rows.contiguous().long(), *bags, None)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        rows: Tensor,
        starts: Tensor,
        ends: Tensor,
        scale: Tensor | None,
    ) -> Tensor:
        # The gradient of the scale needs the weight, that of the weight does not.
        needed = weight if scale is not None and scale.requires_grad else None
        ctx.save_for_backward(rows, starts, ends, scale, needed)
        ctx.shape = weight.shape
        out = torch.empty(starts.shape[0], weight.shape[1])
        library.native.pooled_lookup(
            weight.data_ptr(), weight.dtype == torch.bfloat16, rows.data_ptr(),
            *_bags(rows, starts, ends), weight.shape[1], pointer(scale), out.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, starts, ends, scale, weight = ctx.saved_tensors
        grad = grad.contiguous()
        dim, threads = grad.shape[1], torch.get_num_threads()
        values = d_scale = None
        if ctx.needs_input_grad[0]:
            bags = torch.empty(rows.shape[0], dtype=torch.int32)
            library.native.bags_of(*_bags(rows, starts, ends), bags.data_ptr(), threads)
            values = BagGradient(Bags(ctx.shape, rows, grad, bags, scale))
        if ctx.needs_input_grad[4]:
            d_scale = torch.empty(rows.shape[0])
            library.native.weights_gradient(
                weight.data_ptr(), weight.dtype == torch.bfloat16, rows.data_ptr(),
                *_bags(rows, starts, ends), grad.data_ptr(), dim, d_scale.data_ptr(), threads,
            )  # fmt: skip
        return values, None, None, None, d_scale


def _bags(rows: Tensor, starts: Tensor, ends: Tensor) -> tuple[int, int, int, int]:
    return starts.data_ptr(), ends.data_ptr(), starts.shape[0], rows.shape[0]
