"""The interaction of vectors, parts of an MLP's backward pass, and the loss."""

import torch
import torch.nn.functional as F
from torch import Tensor


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


def bce(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean binary cross-entropy, `-(y log p + (1 - y) log(1 - p))`, p = sigmoid(z).

    Args:
        logits: (B, K), z. The result is finite for any finite one.
        labels: (B, K), y in [0, 1], of the same type.

    Returns:
        A scalar; only the logits get a gradient.

    """
    return F.binary_cross_entropy_with_logits(logits, labels)
