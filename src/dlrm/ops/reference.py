"""Kernels in plain torch: what every other backend is tested against.

Legend: R rows of the stacked tables, D embedding dimension, L looked-up rows, G bags, B batch,
T tables, F vectors that interact. How tables can be stored is told in `storage`.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from dlrm.ops.storage import load, store

Pooling = Literal["sum", "mean"]


def available() -> str | None:
    """Return why these kernels cannot run here, or None: they always can."""
    return None


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
        of range, -1 if there is none, or -2 if the offsets do not rise from 0 to L.

    """
    if offsets is None:
        wrong = (ids < 0) | (ids >= sizes)
        rows = ids + starts
    else:
        lengths = offsets.diff()
        if offsets[0] != 0 or offsets[-1] != ids.shape[0] or (lengths < 0).any():
            return ids, -2
        tables = torch.arange(len(lengths), device=ids.device) % len(sizes)
        table = tables.repeat_interleave(lengths, output_size=ids.shape[0])
        wrong = (ids < 0) | (ids >= sizes[table])
        rows = ids + starts[table]
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

    Args:
        rows: (...) int32 or int64.
        grad: (..., D).
        shape: (R, D) of the weight.

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
    *,
    mode: Pooling = "sum",
    per_sample_weights: Tensor | None = None,
) -> Tensor:
    """Return the sum or mean of the rows of each bag, zeros if it is empty; sparse gradient.

    Args:
        weight: (R, D).
        rows: (L,) int64, bag after bag.
        offsets: (G + 1,) int64 from 0 to L, bag g is `rows[offsets[g] : offsets[g + 1]]`.
        mode: `sum` or `mean`.
        per_sample_weights: (L,) factor of each looked-up row, or None; it also gets a gradient.
            A mean divides by the length of the bag, not by its weight.

    Returns:
        (G, D), float32 if stored in bfloat16.

    """
    if weight.dtype != torch.bfloat16 and (mode == "sum" or per_sample_weights is None):
        return F.embedding_bag(
            rows,
            weight,
            offsets,
            mode=mode,
            sparse=True,
            include_last_offset=True,
            per_sample_weights=per_sample_weights,
        )
    lengths = offsets.diff()
    looked_up = lookup(weight, rows)
    if per_sample_weights is not None:
        looked_up = looked_up * per_sample_weights[:, None]
    bag = torch.arange(len(lengths), device=rows.device).repeat_interleave(lengths)
    pooled = looked_up.new_zeros(len(lengths), weight.shape[1]).index_add(0, bag, looked_up)
    return pooled / lengths.clamp(min=1)[:, None] if mode == "mean" else pooled


def aggregate(
    weight: Tensor, rows: Tensor, grad: Tensor, lower: Tensor | None, l2: float, every_row: bool
) -> tuple[Tensor, Tensor]:
    """Add up the gradients of equal rows, and to each the one of `l2 / 2 * ||w||^2`.

    Args:
        weight: (R, D).
        rows: (L,) int64.
        grad: (L, D).
        lower: As for `sgd_update`.
        l2: As for `sgd_update`.
        every_row: As for `sgd_update`.

    Returns:
        The distinct rows in ascending order (U,), or all of them (R,), and the gradient of each.

    """
    if every_row:
        distinct, inverse = torch.arange(weight.shape[0], device=rows.device), rows
    else:
        distinct, inverse = torch.unique(rows, return_inverse=True)
    total = grad.new_zeros(distinct.shape[0], grad.shape[1]).index_add_(0, inverse, grad)
    return distinct, total.add_(load(weight, distinct, lower), alpha=l2) if l2 else total


def sgd_update(
    weight: Tensor,
    rows: Tensor,
    grad: Tensor,
    lr: float,
    *,
    l2: float = 0.0,
    every_row: bool = False,
    lower: Tensor | None = None,
    seed: int = 0,
) -> None:
    """`w[i] -= lr * g[i]`, where g[i] is the sum over duplicates of i, plus `l2 * w[i]`.

    Args:
        weight: (R, D), changed in place.
        rows: (L,) int64, with duplicates.
        grad: (L, D), float32 if stored in bfloat16.
        lr: Learning rate.
        l2: The gradient of each row that takes part gains `l2 * w[i]`, once however often it is
            looked up.
        every_row: Whether all rows take part; else those that are looked up.
        lower: (R, D) int16, changed in place: the lower halves of split rows; see `storage`.
        seed: Of stochastic rounding; another one for each step.

    """
    if l2:
        rows, grad = aggregate(weight, rows, grad, lower, l2, every_row)
    if weight.dtype != torch.bfloat16:
        weight.index_add_(0, rows, grad, alpha=-lr)
        return
    distinct, inverse = torch.unique(rows, return_inverse=True)
    values = load(weight, distinct, lower).index_add_(0, inverse, grad, alpha=-lr)
    store(weight, distinct, values, lower, seed)


def adagrad_update(
    weight: Tensor,
    state: Tensor,
    rows: Tensor,
    grad: Tensor,
    lr: float,
    eps: float,
    *,
    l2: float = 0.0,
    every_row: bool = False,
    lower: Tensor | None = None,
    seed: int = 0,
) -> None:
    """`s[i] += g[i]^2; w[i] -= lr * g[i] / (sqrt(s[i]) + eps)`, g[i] summed over duplicates first.

    Args:
        weight: (R, D), changed in place.
        state: (R, D), the sums of squares, changed in place.
        rows: (L,) int64, with duplicates.
        grad: (L, D).
        lr: Learning rate.
        eps: Keeps the division finite.
        l2: As for `sgd_update`.
        every_row: As for `sgd_update`.
        lower: As for `sgd_update`.
        seed: As for `sgd_update`.

    Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods", JMLR 2011.

    """
    rows, grad = aggregate(weight, rows, grad, lower, l2, every_row)
    squares = state.index_select(0, rows).addcmul_(grad, grad)
    state.index_copy_(0, rows, squares)
    _subtract(weight, rows, grad / squares.sqrt_().add_(eps), lr, lower, seed)


def rowwise_adagrad_update(
    weight: Tensor,
    state: Tensor,
    rows: Tensor,
    grad: Tensor,
    lr: float,
    eps: float,
    *,
    l2: float = 0.0,
    every_row: bool = False,
    lower: Tensor | None = None,
    seed: int = 0,
) -> None:
    """Adagrad with one sum a row: `s[i] += mean(g[i]^2); w[i] -= lr * g[i] / (sqrt(s[i]) + eps)`.

    Args:
        weight: (R, D), changed in place.
        state: (R,), the sums of mean squares, changed in place.
        rows: (L,) int64, with duplicates.
        grad: (L, D).
        lr: Learning rate.
        eps: Keeps the division finite.
        l2: As for `sgd_update`.
        every_row: As for `sgd_update`.
        lower: As for `sgd_update`.
        seed: As for `sgd_update`.

    Source: Mudigere et al., "Software-Hardware Co-design for Fast and Scalable Training of Deep
    Learning Recommendation Models", arXiv 2104.05158.

    """
    rows, grad = aggregate(weight, rows, grad, lower, l2, every_row)
    squares = state.index_select(0, rows).add_(grad.square().mean(dim=1))
    state.index_copy_(0, rows, squares)
    _subtract(weight, rows, grad / squares.sqrt_().add_(eps)[:, None], lr, lower, seed)


def adam_update(
    weight: Tensor,
    moments: Tensor,
    rows: Tensor,
    grad: Tensor,
    lr: float,
    *,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    l2: float = 0.0,
    every_row: bool = False,
    lower: Tensor | None = None,
    seed: int = 0,
) -> None:
    """Adam; lazy, unless every row takes part: other rows' moments wait as they are.

        m[i] += (1 - beta1) (g[i] - m[i]);  v[i] += (1 - beta2) (g[i]^2 - v[i])
        w[i] -= lr * m[i] / (1 - beta1^step) / (sqrt(v[i] / (1 - beta2^step)) + eps)

    Args:
        weight: (R, D), changed in place.
        moments: (R, 2, D), m and v of each row, changed in place.
        rows: (L,) int64, with duplicates; g[i] is the sum over those of i.
        grad: (L, D).
        lr: Learning rate.
        step: Number of this step, from 1.
        beta1: Decay of m.
        beta2: Decay of v.
        eps: Keeps the division finite.
        l2: As for `sgd_update`.
        every_row: As for `sgd_update`.
        lower: As for `sgd_update`.
        seed: As for `sgd_update`.

    Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization", arXiv 1412.6980.

    """
    rows, grad = aggregate(weight, rows, grad, lower, l2, every_row)
    m, v = moments.index_select(0, rows).unbind(1)
    m, v = m.lerp(grad, 1 - beta1), v.lerp(grad.square(), 1 - beta2)
    moments.index_copy_(0, rows, torch.stack([m, v], dim=1))
    rate, eps = bias_corrected(lr, eps, step, beta1, beta2)
    _subtract(weight, rows, m / v.sqrt_().add_(eps), rate, lower, seed)


def bias_corrected(
    lr: float, eps: float, step: int, beta1: float, beta2: float
) -> tuple[float, float]:
    """Return the learning rate and epsilon with which Adam's moments need no correction."""
    root = (1 - beta2**step) ** 0.5
    return lr * root / (1 - beta1**step), eps * root


def _subtract(
    weight: Tensor, rows: Tensor, step: Tensor, lr: float, lower: Tensor | None, seed: int
) -> None:
    if weight.dtype != torch.bfloat16:
        weight.index_add_(0, rows, step, alpha=-lr)
    else:
        values = load(weight, rows, lower).add_(step, alpha=-lr)
        store(weight, rows, values, lower, seed)


def dense_sgd(
    weights: Sequence[Tensor], grads: Sequence[Tensor], lr: float, *, decay: float = 0.0
) -> None:
    """`w -= lr * (g + decay * w)` for every parameter.

    Args:
        weights: The parameters, of any shapes, changed in place.
        grads: The gradient of each, of its shape; its type or bfloat16.
        lr: Learning rate.
        decay: Weight decay, the factor of the L2 term `decay / 2 * ||w||^2` of the loss.

    """
    for weight, grad in zip(weights, grads, strict=True):
        weight.sub_(_decayed(weight, grad, decay), alpha=lr)


def dense_adagrad(
    weights: Sequence[Tensor],
    states: Sequence[Tensor],
    grads: Sequence[Tensor],
    lr: float,
    eps: float,
    *,
    decay: float = 0.0,
) -> None:
    """`s += g^2; w -= lr * g / (sqrt(s) + eps)` for every parameter, with g + decay * w as g.

    Args:
        weights: As for `dense_sgd`.
        states: The sums of squares of each, of its shape, changed in place.
        grads: As for `dense_sgd`.
        lr: Learning rate.
        eps: Keeps the division finite.
        decay: As for `dense_sgd`.

    """
    for weight, state, grad in zip(weights, states, grads, strict=True):
        g = _decayed(weight, grad, decay)
        state.addcmul_(g, g)
        weight.addcdiv_(g, state.sqrt().add_(eps), value=-lr)


def dense_adam(
    weights: Sequence[Tensor],
    firsts: Sequence[Tensor],
    seconds: Sequence[Tensor],
    grads: Sequence[Tensor],
    lr: float,
    *,
    step: int,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decay: float = 0.0,
) -> None:
    """Adam for every parameter, as `adam_update` for rows, with g + decay * w as g.

    Args:
        weights: As for `dense_sgd`.
        firsts: The first moment of each, m, of its shape, changed in place.
        seconds: The second moment of each, v, of its shape, changed in place.
        grads: As for `dense_sgd`.
        lr: Learning rate.
        step: Number of this step, from 1.
        beta1: Decay of m.
        beta2: Decay of v.
        eps: Keeps the division finite.
        decay: As for `dense_sgd`.

    """
    rate, eps = bias_corrected(lr, eps, step, beta1, beta2)
    for weight, m, v, grad in zip(weights, firsts, seconds, grads, strict=True):
        g = _decayed(weight, grad, decay)
        m.lerp_(g, 1 - beta1)
        v.lerp_(g.square(), 1 - beta2)
        weight.addcdiv_(m, v.sqrt().add_(eps), value=-rate)


def _decayed(weight: Tensor, grad: Tensor, decay: float) -> Tensor:
    grad = grad.to(weight.dtype)
    return grad.add(weight, alpha=decay) if decay else grad


def dot_interaction(x: Tensor, e: Tensor, self_interaction: bool) -> Tensor:
    """Return x and the dot product of every pair of the vectors v = (x, e_1 ... e_T).

    The products go row by row down the lower triangle: (1,0), (2,0), (2,1), (3,0), ...; with
    `self_interaction` also (0,0), (1,1), ... in their places.

    Args:
        x: (B, D).
        e: (B, T, D).
        self_interaction: Whether a vector also meets itself.

    Returns:
        (B, D + F*(F-1)/2), or (B, D + F*(F+1)/2) with `self_interaction`, F = T + 1; of x's type,
        computed in float32 if that is bfloat16.

    """
    wide = torch.promote_types(x.dtype, torch.float32)
    vectors = torch.cat([x[:, None].to(wide), e.to(wide)], dim=1)
    count = vectors.shape[1]
    products = torch.bmm(vectors, vectors.transpose(1, 2))
    row, column = torch.tril_indices(
        count, count, offset=0 if self_interaction else -1, device=x.device
    )
    pairs = products.flatten(1).index_select(1, row * count + column)
    return torch.cat([x, pairs.to(x.dtype)], dim=1)


def relu_gradient(grad: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the gradient before a ReLU, and its sum over the batch, which is the bias's.

    Args:
        grad: (B, K), the gradient of the layer's output.
        y: (B, K), the output, of the same type; None where there is no ReLU.

    Returns:
        `grad` where y > 0 and 0 elsewhere (B, K), of its type, and its sum over the batch (K,), at
        least float32.

    """
    before = grad if y is None else grad.masked_fill(~(y > 0), 0)
    wide = torch.promote_types(grad.dtype, torch.float32)
    return before, before.sum(dim=0, dtype=wide)
