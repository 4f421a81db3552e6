"""Updates of optimizers: of the rows of a table that were looked up, and of dense parameters."""

from collections.abc import Callable, Sequence
from typing import TypedDict, Unpack

import torch
from torch import Tensor

from dlrm.ops.storage import load, store

MeanSquares = Callable[[Tensor, Tensor], Tensor]
"""Returns the mean squares (U,) of distinct rows (U,), ascending, from their gradients (U, D)."""


class UpdateOptions(TypedDict, total=False):
    """Arguments that every update of rows takes beside its own."""

    l2: float
    """The gradient of each row that takes part gains `l2 * w[i]`, once however often it is looked
    up; 0 by default."""
    every_row: bool
    """Whether all rows take part; else, by default, those that are looked up."""
    lower: Tensor | None
    """(R, D) int16, changed in place: the lower halves of split rows; see `dlrm.ops.storage`."""
    seed: int
    """Seed of stochastic rounding, another one for each step; 0, by default, rounds to the
    nearest."""
    bags: Tensor | None
    """(L,) int32: where rows were added up in bags, the bag of each; the gradients are those of the
    bags, (G, D). None, by default, where each row has a gradient of its own."""
    scale: Tensor | None
    """(L,): with `bags`, the factor of each row in its sum; None, by default, is 1."""


def of_lookups(grad: Tensor, bags: Tensor | None, scale: Tensor | None) -> Tensor:
    """Return the gradients (L, D) of looked-up rows from those of their bags (G, D).

    See `UpdateOptions`; without bags they are there already.
    """
    if bags is None:
        return grad
    spread = grad.index_select(0, bags)
    return spread if scale is None else spread.mul_(scale.to(grad.dtype)[:, None])


def aggregate(
    weight: Tensor, rows: Tensor, grad: Tensor, lower: Tensor | None, l2: float, every_row: bool
) -> tuple[Tensor, Tensor]:
    """Add up the gradients of equal rows, and to each the one of `l2 / 2 * ||w||^2`.

    Rows (L,) have gradients (L, D); all else is as in `UpdateOptions`.

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
    **options: Unpack[UpdateOptions],
) -> None:
    """`w[i] -= lr * g[i]`, where g[i] is the sum over duplicates of i, plus `l2 * w[i]`.

    Args:
        weight: (R, D), changed in place.
        rows: (L,) int64, with duplicates.
        grad: (L, D), float32 if stored in bfloat16; (G, D) of bags.
        lr: Learning rate.
        options: See `UpdateOptions`.

    """
    if options.get("l2"):
        rows, grad = _summed(weight, rows, grad, options)
    else:
        grad = of_lookups(grad, options.get("bags"), options.get("scale"))
    if weight.dtype != torch.bfloat16:
        weight.index_add_(0, rows, grad, alpha=-lr)
        return
    lower = options.get("lower")
    distinct, inverse = torch.unique(rows, return_inverse=True)
    values = load(weight, distinct, lower).index_add_(0, inverse, grad, alpha=-lr)
    store(weight, distinct, values, lower, options.get("seed", 0))


def adagrad_update(
    weight: Tensor,
    state: Tensor,
    rows: Tensor,
    grad: Tensor,
    lr: float,
    eps: float,
    **options: Unpack[UpdateOptions],
) -> None:
    """`s[i] += g[i]^2; w[i] -= lr * g[i] / (sqrt(s[i]) + eps)`, g[i] summed over duplicates first.

    `state` (R, D) holds the sums of squares, changed in place; eps keeps the division finite; all
    else is as for `sgd_update`.

    Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods", JMLR 2011.
    """
    rows, grad = _summed(weight, rows, grad, options)
    squares = state.index_select(0, rows).addcmul_(grad, grad)
    state.index_copy_(0, rows, squares)
    _subtract(weight, rows, grad / squares.sqrt_().add_(eps), lr, options)


def rowwise_adagrad_update(
    weight: Tensor,
    state: Tensor,
    rows: Tensor,
    grad: Tensor,
    lr: float,
    eps: float,
    *,
    mean_squares: MeanSquares | None = None,
    **options: Unpack[UpdateOptions],
) -> None:
    """Adagrad with one sum a row: `s[i] += mean(g[i]^2); w[i] -= lr * g[i] / (sqrt(s[i]) + eps)`.

    `state` (R,) holds the sums of mean squares, changed in place. Where the weight has some columns
    only of longer rows, `mean_squares` is the mean over these. All else is as for `adagrad_update`.

    Source: Mudigere et al., "Software-Hardware Co-design for Fast and Scalable Training of Deep
    Learning Recommendation Models", arXiv 2104.05158.
    """
    rows, grad = _summed(weight, rows, grad, options)
    mean = grad.square().mean(dim=1) if mean_squares is None else mean_squares(rows, grad)
    squares = state.index_select(0, rows).add_(mean)
    state.index_copy_(0, rows, squares)
    _subtract(weight, rows, grad / squares.sqrt_().add_(eps)[:, None], lr, options)


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
    **options: Unpack[UpdateOptions],
) -> None:
    """Adam; lazy, unless every row takes part: other rows' moments wait as they are.

        m[i] += (1 - beta1) (g[i] - m[i]);  v[i] += (1 - beta2) (g[i]^2 - v[i])
        w[i] -= lr * m[i] / (1 - beta1^step) / (sqrt(v[i] / (1 - beta2^step)) + eps)

    `moments` (R, 2, D) are m and v of each row, changed in place; `step` is the number of this
    step, from 1; all else is as for `sgd_update`.

    Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization", arXiv 1412.6980.
    """
    rows, grad = _summed(weight, rows, grad, options)
    m, v = moments.index_select(0, rows).unbind(1)
    m, v = m.lerp(grad, 1 - beta1), v.lerp(grad.square(), 1 - beta2)
    moments.index_copy_(0, rows, torch.stack([m, v], dim=1))
    rate, eps = bias_corrected(lr, eps, step, beta1, beta2)
    _subtract(weight, rows, m / v.sqrt_().add_(eps), rate, options)


def bias_corrected(
    lr: float, eps: float, step: int, beta1: float, beta2: float
) -> tuple[float, float]:
    """Return the learning rate and epsilon with which Adam's moments need no correction."""
    root = (1 - beta2**step) ** 0.5
    return lr * root / (1 - beta1**step), eps * root


def _summed(
    weight: Tensor, rows: Tensor, grad: Tensor, options: UpdateOptions
) -> tuple[Tensor, Tensor]:
    every_row, lower = options.get("every_row", False), options.get("lower")
    grad = of_lookups(grad, options.get("bags"), options.get("scale"))
    return aggregate(weight, rows, grad, lower, options.get("l2", 0.0), every_row)


def _subtract(
    weight: Tensor, rows: Tensor, step: Tensor, lr: float, options: UpdateOptions
) -> None:
    if weight.dtype != torch.bfloat16:
        weight.index_add_(0, rows, step, alpha=-lr)
    else:
        lower = options.get("lower")
        values = load(weight, rows, lower).add_(step, alpha=-lr)
        store(weight, rows, values, lower, options.get("seed", 0))


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

    `states` are the sums of squares of each, of its shape, changed in place; all else is as for
    `dense_sgd`.
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

    `firsts` and `seconds` are the moments m and v of each, of its shape, changed in place; `step`
    is the number of this step, from 1; all else is as for `dense_sgd`.
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
