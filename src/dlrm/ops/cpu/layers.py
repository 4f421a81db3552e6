"""Parts of an MLP's backward pass."""

import torch
from torch import Tensor

from dlrm.ops.cpu import library


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
