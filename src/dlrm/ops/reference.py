"""Kernels in plain torch: what every other backend is tested against.

Legend: R rows of the stacked tables, D embedding dimension, L looked-up ids, G bags, B batch,
F vectors that interact.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def lookup(weight: Tensor, ids: Tensor) -> Tensor:
    """Return the rows `weight[ids]`; the gradient is sparse.

    Args:
        weight: (R, D).
        ids: (...) int32 or int64, rows of `weight`.

    Returns:
        (..., D).

    """
    return F.embedding(ids, weight, sparse=True)


def pooled_lookup(weight: Tensor, ids: Tensor, offsets: Tensor) -> Tensor:
    """Return the sum of the rows of each bag, zeros for an empty one; the gradient is sparse.

    Args:
        weight: (R, D).
        ids: (L,) int64, rows of `weight`, bag after bag.
        offsets: (G + 1,) int64, bag g is `ids[offsets[g] : offsets[g + 1]]`.

    Returns:
        (G, D).

    """
    return F.embedding_bag(ids, weight, offsets, mode="sum", sparse=True, include_last_offset=True)


def aggregate(ids: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Add up the gradients of equal ids.

    Args:
        ids: (L,) int64.
        grad: (L, D).

    Returns:
        The distinct ids in ascending order (U,), and the sum of the gradients of each (U, D).

    """
    distinct, inverse = torch.unique(ids, return_inverse=True)
    total = grad.new_zeros(distinct.shape[0], grad.shape[1])
    return distinct, total.index_add_(0, inverse, grad)


def sgd_update(weight: Tensor, ids: Tensor, grad: Tensor, lr: float) -> None:
    """`w[i] -= lr * g[i]`, where g[i] is the sum over duplicates of i.

    Args:
        weight: (R, D), changed in place.
        ids: (L,) int64, with duplicates.
        grad: (L, D).
        lr: Learning rate.

    """
    weight.index_add_(0, ids, grad, alpha=-lr)


def adagrad_update(
    weight: Tensor, state: Tensor, ids: Tensor, grad: Tensor, lr: float, eps: float
) -> None:
    """`s[i] += g[i]^2; w[i] -= lr * g[i] / (sqrt(s[i]) + eps)`, g[i] summed over duplicates first.

    Args:
        weight: (R, D), changed in place.
        state: (R, D), the sums of squares, changed in place.
        ids: (L,) int64, with duplicates.
        grad: (L, D).
        lr: Learning rate.
        eps: Keeps the division finite.

    Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods", JMLR 2011.

    """
    ids, grad = aggregate(ids, grad)
    squares = state.index_select(0, ids).addcmul_(grad, grad)
    state.index_copy_(0, ids, squares)
    weight.index_add_(0, ids, grad / squares.sqrt_().add_(eps), alpha=-lr)


def rowwise_adagrad_update(
    weight: Tensor, state: Tensor, ids: Tensor, grad: Tensor, lr: float, eps: float
) -> None:
    """Adagrad with one sum a row: `s[i] += mean(g[i]^2); w[i] -= lr * g[i] / (sqrt(s[i]) + eps)`.

    Args:
        weight: (R, D), changed in place.
        state: (R,), the sums of mean squares, changed in place.
        ids: (L,) int64, with duplicates.
        grad: (L, D).
        lr: Learning rate.
        eps: Keeps the division finite.

    Source: Mudigere et al., "Software-Hardware Co-design for Fast and Scalable Training of Deep
    Learning Recommendation Models", arXiv 2104.05158.

    """
    ids, grad = aggregate(ids, grad)
    squares = state.index_select(0, ids).add_(grad.square().mean(dim=1))
    state.index_copy_(0, ids, squares)
    weight.index_add_(0, ids, grad / squares.sqrt_().add_(eps)[:, None], alpha=-lr)


def pairwise_dot(vectors: Tensor, self_interaction: bool) -> Tensor:
    """Return the dot product of every pair of vectors, row by row of the lower triangle.

    The order is (1,0), (2,0), (2,1), (3,0), ...; with `self_interaction` also (0,0), (1,1), ...
    in their places.

    Args:
        vectors: (B, F, D).
        self_interaction: Whether a vector also meets itself.

    Returns:
        (B, F*(F-1)/2), or (B, F*(F+1)/2) with `self_interaction`.

    """
    count = vectors.shape[1]
    products = torch.bmm(vectors, vectors.transpose(1, 2))
    row, column = torch.tril_indices(
        count, count, offset=0 if self_interaction else -1, device=vectors.device
    )
    return products.flatten(1).index_select(1, row * count + column)
