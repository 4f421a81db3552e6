"""Sparse updates: optimizers of the rows that were looked up."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from dlrm.ops.cpu import library
from dlrm.ops.cpu.library import pointer
from dlrm.ops.reference import updates as plain
from dlrm.ops.reference.updates import MeanSquares, bias_corrected


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
    """`w[i] -= lr * g[i]`; see `reference.sgd_update`."""
    _update(library.native.sgd_update, weight, rows, grad, lr, l2, every_row, lower, seed)


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
    """`s[i] += g[i]^2; w[i] -= lr * g[i] / (sqrt(s[i]) + eps)`; see `reference.adagrad_update`."""
    square = _state(state, weight.shape)
    _update(
        library.native.adagrad_update, weight, rows, grad, lr, l2, every_row, lower, seed, square,
        eps,
    )  # fmt: skip


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
    """Adagrad with one sum a row; see `reference.rowwise_adagrad_update`."""
    if mean_squares is not None:
        # It asks other processes in the middle, which a kernel cannot.
        plain.rowwise_adagrad_update(
            weight, state, rows, grad, lr, eps, l2=l2, every_row=every_row, lower=lower, seed=seed,
            mean_squares=mean_squares,
        )  # fmt: skip
        return
    square = _state(state, weight.shape[:1])
    _update(
        library.native.rowwise_adagrad_update, weight, rows, grad, lr, l2, every_row, lower, seed,
        square, eps,
    )  # fmt: skip


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
    """Adam; see `reference.adam_update`."""
    both = _state(moments, torch.Size((weight.shape[0], 2, weight.shape[1])))
    rate, eps = bias_corrected(lr, eps, step, beta1, beta2)
    _update(
        library.native.adam_update, weight, rows, grad, rate, l2, every_row, lower, seed,
        both, 1 - beta1, 1 - beta2, eps,
    )  # fmt: skip


def _state(state: Tensor, shape: torch.Size) -> int:
    if state.dtype != torch.float32 or state.shape != shape or not state.is_contiguous():
        raise TypeError(
            f"optimizer state is {state.dtype} {tuple(state.shape)}, "
            f"expected contiguous float32 {tuple(shape)}"
        )
    return state.data_ptr()


def _update(
    function: Any,
    weight: Tensor,
    rows: Tensor,
    grad: Tensor,
    lr: float,
    l2: float,
    every_row: bool,
    lower: Tensor | None,
    seed: int,
    *rest: float,
) -> None:
    count, dim = rows.shape[0], weight.shape[1]
    if grad.shape != (count, dim):
        raise TypeError(f"gradient is {tuple(grad.shape)}, expected ({count}, {dim})")
    if lower is not None and (lower.shape != weight.shape or lower.dtype != torch.int16):
        raise TypeError(f"lower half is {lower.dtype}, expected int16 of the weight's shape")
    rows, grad = rows.contiguous().long(), grad.float().contiguous()
    storage = 0 if weight.dtype == torch.float32 else 1 if lower is None else 2
    function(
        storage, weight.data_ptr(), pointer(lower), seed & 0xFFFFFFFF, rows.data_ptr(),
        grad.data_ptr(), count, dim, lr, torch.get_num_threads(), l2,
        weight.shape[0] if every_row else 0, *rest,
    )  # fmt: skip
    increment_version(weight)
