"""Compressed interaction network, the explicit part of xDeepFM.

Legend: B batch, T tables, D embedding dimension, H_k vectors of layer k, H_0 = T.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from dlrm.nn.linear import Linear
from dlrm.nn.precision import ComputeDtype
from dlrm.ops.products import linear


class CIN(nn.Module):
    """`X^k_h = sum over i, j of W^k_{hij} (X^{k-1}_i * X^0_j)`, each layer summed over D.

    X^0 are the embeddings, X^k the H_k vectors of layer k, and * is elementwise. The output has all
    layers' sums side by side.

    The pairs of a layer, (B, H_{k-1}, T, D), are never held: they are built for some samples at a
    time and multiplied at once. The last layer needs only its sum over D, and so it is linear in
    `sum over d of X^{k-1}_id X^0_jd`, D times fewer numbers to multiply.

    `sizes` are H_1, H_2, ..., one a layer; products are of `dtype`, and vectors stay float32.

    Source: Lian et al., "xDeepFM: Combining Explicit and Implicit Feature Interactions for
    Recommender Systems", arXiv 1803.05170.

    """

    def __init__(self, tables: int, sizes: Sequence[int], *, dtype: ComputeDtype = "fp32"):
        super().__init__()
        self.width = sum(sizes)
        self.dtype = dtype
        *hidden, last = pairwise((tables, *sizes))
        # Columns of W are the pairs (j, i), j before i: the vectors i are the longer, inner run.
        self.weights = nn.ParameterList(
            torch.randn(h, tables * before) * sqrt(2 / (h + tables * before))
            for before, h in hidden
        )
        self.last = Linear(tables * last[0], last[1], bias=False, dtype=dtype)

    def forward(self, e: Tensor) -> Tensor:
        """Map (B, T, D) to (B, H_1 + H_2 + ...)."""
        dtype = torch.bfloat16 if self.dtype == "bf16" else e.dtype
        x, sums = e, []
        for weight in self.weights:
            x = _Layer.apply(e, x, weight, dtype)
            sums.append(x.sum(dim=2))
        pairs = torch.bmm(e.to(dtype), x.to(dtype).transpose(1, 2)).flatten(1)
        return torch.cat([*sums, self.last(pairs)], dim=1)


class _Layer(torch.autograd.Function):
    """`X_h = sum over i, j of W_h(j,i) X^0_j * X_i`.

    x0 (B, T, D), x (B, H', D), weight (H, T * H') -> (B, H, D). Backwards, with Z the pairs and G
    the gradient: dW = G Z^T, dZ = W^T G, dX^0_j = sum over i of dZ_ji * X_i, dX_i = sum over j of
    dZ_ji * X^0_j. Z is built again then, because it is T * H' * D numbers a sample.

    Vectors are rows, the samples of a part side by side, so that all steps run along long rows.
    """

    @staticmethod
    def forward(ctx: Any, x0: Tensor, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x0, x, weight)
        ctx.dtype = dtype
        out = x.new_empty(len(x), weight.shape[0], x.shape[2])
        w = weight.to(dtype)
        for part in _parts(x0, x):
            pairs = _pairs(_rows(x0[part], dtype), _rows(x[part], dtype))
            _put(out[part], linear(w, pairs.t()))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x0, x, weight = ctx.saved_tensors
        of_x0, of_x = torch.empty_like(x0), torch.empty_like(x)
        of_weight = torch.zeros_like(weight)
        w = weight.to(ctx.dtype).t().contiguous()
        for part in _parts(x0, x):
            rows0, rows = _rows(x0[part], ctx.dtype), _rows(x[part], ctx.dtype)
            g = _rows(grads[0][part], ctx.dtype)
            of_weight += linear(g, _pairs(rows0, rows))
            of_pairs = linear(w, g.t()).view(len(rows0), len(rows), -1)
            _put(of_x0[part], (of_pairs * rows).sum(dim=1))
            _put(of_x[part], (of_pairs * rows0[:, None]).sum(dim=0))
        return of_x0, of_x, of_weight, None


def _parts(x0: Tensor, x: Tensor) -> Iterator[slice]:
    """Slices of samples whose pairs are about `PAIRS` numbers."""
    samples = max(1, PAIRS // (x0.shape[1] * x.shape[1] * x.shape[2]))
    return (slice(start, start + samples) for start in range(0, len(x0), samples))


def _rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Lay vectors (B, H, D) out as rows (H, B * D)."""
    return x.transpose(0, 1).flatten(1).to(dtype)


def _put(x: Tensor, rows: Tensor) -> None:
    """Store rows (H, B * D) as vectors x (B, H, D)."""
    x.copy_(rows.view(x.shape[1], x.shape[0], -1).transpose(0, 1))


def _pairs(rows0: Tensor, rows: Tensor) -> Tensor:
    """Return each row of (T, R) times each of (H', R), elementwise: (T * H', R)."""
    return (rows0[:, None] * rows).flatten(0, 1)


PAIRS = 2**21
"""Numbers that are built at a time: few enough to stay in a cache, enough for a fast product."""
