"""Sparse updates: optimizers of the rows that were looked up."""

from collections.abc import Callable

import torch
from torch import Tensor

from dlrm.ops.storage import load, store

MeanSquares = Callable[[Tensor, Tensor], Tensor]
"""From distinct rows (U,), ascending, and their gradients (U, D) to the mean squares (U,)."""


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
        seed: Seed of stochastic rounding, another one for each step; 0 rounds to the nearest.

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
    mean_squares: MeanSquares | None = None,
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
        mean_squares: Where the weight has some columns only of longer rows, the mean over these.

    Source: Mudigere et al., "Software-Hardware Co-design for Fast and Scalable Training of Deep
    Learning Recommendation Models", arXiv 2104.05158.

    """
    rows, grad = aggregate(weight, rows, grad, lower, l2, every_row)
    mean = grad.square().mean(dim=1) if mean_squares is None else mean_squares(rows, grad)
    squares = state.index_select(0, rows).add_(mean)
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
