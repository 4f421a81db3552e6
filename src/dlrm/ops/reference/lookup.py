"""Lookups: rows of the stacked tables, alone or added up in bags."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dlrm.batch import bags_of, spread


def rows_of(
    ids: Tensor, starts: Tensor, sizes: Tensor, offsets: Tensor | None = None
) -> tuple[Tensor, int]:
    """Turn ids within a table into rows of the stacked tables.

    Args:
        ids: (B, T) int32 or int64; with offsets (L,).
        starts: (T,) int64, the first row of each table.
        sizes: (T,) int64, its rows.
        offsets: (B*T + 1,) int64, or None; bag g belongs to table g % T.

    Returns:
        The rows, int64, in the shape of ids; and the first position in ids.flatten() that is out
        of range, -1 if there is none, or -2 if the offsets do not rise from 0 to L. On a device
        other than a CPU, where to look is to wait, and in an export it is always -1.

    """
    looks = ids.is_cpu and not torch.compiler.is_exporting()
    if offsets is None:
        rows = ids + starts
        if not looks:
            return rows, -1
        wrong = (ids < 0) | (ids >= sizes)
    else:
        lengths = offsets.diff()
        if looks and (offsets[0] != 0 or offsets[-1] != ids.shape[0] or (lengths < 0).any()):
            return ids, -2
        every = lengths.shape[0] // starts.shape[0]
        rows = ids + spread(starts.repeat(every), offsets, ids.shape[0])
        if not looks:
            return rows, -1
        wrong = (ids < 0) | (ids >= spread(sizes.repeat(every), offsets, ids.shape[0]))
    return rows, int(wrong.flatten().nonzero()[0]) if wrong.any() else -1


def lookup(weight: Tensor, rows: Tensor) -> Tensor:
    """Return `weight[rows]`; the gradient is sparse.

    Args:
        weight: (R, D).
        rows: (...) int32 or int64.

    Returns:
        (..., D), float32 if stored in bfloat16.

    """
    if weight.dtype == torch.bfloat16:
        return _Widened.apply(weight, rows)
    return F.embedding(rows, weight, sparse=True)


class _Widened(torch.autograd.Function):
    """A lookup in bfloat16 rows whose gradient stays float32."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = weight.shape
        return F.embedding(rows, weight).float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (rows,) = ctx.saved_tensors
        return sparse_gradient(rows, grad, ctx.shape), None


def sparse_gradient(rows: Tensor, grad: Tensor, shape: torch.Size) -> Tensor:
    """Return the gradient of a weight from those of its looked-up rows, not summed.

    Rows are (...), their gradients (..., D), and the weight has the shape (R, D).
    """
    return torch.sparse_coo_tensor(
        rows.reshape(1, -1).long(),
        grad.reshape(-1, shape[1]),
        shape,
        check_invariants=False,
        is_coalesced=False,
    )


def pooled_lookup(
    weight: Tensor,
    rows: Tensor,
    offsets: Tensor,
    per_sample_weights: Tensor | None = None,
) -> Tensor:
    """Return the sum of the rows of each bag, zeros if it is empty; sparse gradient.

    Args:
        weight: (R, D).
        rows: (L,) int64, bag after bag.
        offsets: (G + 1,) int64 from 0 to L, bag g is `rows[offsets[g] : offsets[g + 1]]`.
        per_sample_weights: (L,) factor of each looked-up row, or None; it also gets a gradient.

    Returns:
        (G, D), float32 if stored in bfloat16.

    """
    if weight.dtype != torch.bfloat16 and not torch.compiler.is_exporting():
        return F.embedding_bag(
            rows,
            weight,
            offsets,
            mode="sum",
            sparse=True,
            include_last_offset=True,
            per_sample_weights=per_sample_weights,
        )
    looked_up = lookup(weight, rows)
    if per_sample_weights is not None:
        looked_up = looked_up * per_sample_weights[:, None]
    sums = looked_up.new_zeros(offsets.shape[0] - 1, weight.shape[1])
    return sums.index_add(0, bags_of(offsets, rows.shape[0]), looked_up)


def pooled_ranges(weight: Tensor, rows: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Return the sum of the rows of each bag, zeros if it is empty; sparse gradient.

    Bags may lie in any order, but each row is in exactly one: where some features have one id a
    sample and others lists, one lookup serves both, and leaves one gradient.

    Args:
        weight: (R, D).
        rows: (L,) int64.
        starts: (G,) int64, bag g is `rows[starts[g] : ends[g]]`.
        ends: (G,) int64.

    Returns:
        (G, D), float32 if stored in bfloat16.

    """
    lengths = ends - starts
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    total = rows.shape[0]
    moved = spread(starts - offsets[:-1], offsets, total)
    in_order = rows.index_select(0, torch.arange(total, device=rows.device) + moved)
    return pooled_lookup(weight, in_order, offsets)
