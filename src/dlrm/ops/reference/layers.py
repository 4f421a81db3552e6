"""Parts of an MLP's backward pass."""

import torch
from torch import Tensor


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
