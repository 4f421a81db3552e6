"""Dense updates: optimizers of all parameters but the tables, in one call."""

from collections.abc import Sequence
from ctypes import c_int64
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from dlrm.ops.cpu import library
from dlrm.ops.cpu.library import DTYPES
from dlrm.ops.reference.updates import bias_corrected


def dense_sgd(
    weights: Sequence[Tensor], grads: Sequence[Tensor], lr: float, *, decay: float = 0.0
) -> None:
    """`w -= lr * (g + decay * w)` for every parameter; see `reference.dense_sgd`."""
    _dense(library.native.dense_sgd, weights, grads, (), lr, decay)


def dense_adagrad(
    weights: Sequence[Tensor],
    states: Sequence[Tensor],
    grads: Sequence[Tensor],
    lr: float,
    eps: float,
    *,
    decay: float = 0.0,
) -> None:
    """`s += g^2; w -= lr * g / (sqrt(s) + eps)`; see `reference.dense_adagrad`."""
    _dense(library.native.dense_adagrad, weights, grads, (states,), lr, decay, eps)


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
    """Adam for every parameter; see `reference.dense_adam`."""
    rate, eps = bias_corrected(lr, eps, step, beta1, beta2)
    _dense(
        library.native.dense_adam, weights, grads, (firsts, seconds), rate, decay,
        1 - beta1, 1 - beta2, eps,
    )  # fmt: skip


def takes(weights: Sequence[Tensor], grads: Sequence[Tensor]) -> bool:
    """Return whether the dense updates take these: float32, contiguous, with such gradients."""
    return (
        all(w.is_cpu for w in weights)
        and {w.dtype for w in weights} <= {torch.float32}
        and {g.dtype for g in grads} <= {*DTYPES}
        and all(map(Tensor.is_contiguous, (*weights, *grads)))
    )


def _dense(
    function: Any,
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    states: Sequence[Sequence[Tensor]],
    lr: float,
    decay: float,
    *rest: float,
) -> None:
    # Small batches notice each microsecond here, hence `map` and counts instead of shapes.
    sizes = [*map(Tensor.numel, weights)]
    for what, tensors in (("gradient", grads), *(("optimizer state", state) for state in states)):
        if [*map(Tensor.numel, tensors)] != sizes:
            raise TypeError(f"{what} has {[*map(Tensor.numel, tensors)]} numbers, expected {sizes}")
    kept = [tensor for state in states for tensor in state]
    if not ({t.dtype for t in kept} <= {torch.float32} and all(map(Tensor.is_contiguous, kept))):
        raise TypeError("optimizer state must be contiguous float32")
    # A table of six columns; native/dense.h says which.
    words = [
        *map(Tensor.data_ptr, weights),
        *map(Tensor.data_ptr, grads),
        *(g.dtype == torch.bfloat16 for g in grads),
        *sizes,
        *map(Tensor.data_ptr, kept),
    ]
    table = (c_int64 * len(words))(*words)
    function(table, len(sizes), lr, decay, torch.get_num_threads(), *rest)
    increment_version(weights)
