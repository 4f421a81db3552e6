"""Updates of optimizers: of the rows of a table that were looked up, and of dense parameters."""

from collections.abc import Sequence
from operator import attrgetter
from struct import pack
from typing import Any, Unpack

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from dlrm.ops.cpu import library
from dlrm.ops.cpu.library import DTYPES, pointer
from dlrm.ops.reference import updates as plain
from dlrm.ops.reference.updates import MeanSquares, UpdateOptions, bias_corrected

_DTYPE, _IS_CPU = attrgetter("dtype"), attrgetter("is_cpu")


def sgd_update(
    weight: Tensor, rows: Tensor, grad: Tensor, lr: float, **options: Unpack[UpdateOptions]
) -> None:
    """`w[i] -= lr * g[i]`; see `reference.sgd_update`."""
    _update(library.native.sgd_update, weight, rows, grad, lr, (), **options)


def adagrad_update(
    weight: Tensor,
    state: Tensor,
    rows: Tensor,
    grad: Tensor,
    lr: float,
    eps: float,
    **options: Unpack[UpdateOptions],
) -> None:
    """`s[i] += g[i]^2; w[i] -= lr * g[i] / (sqrt(s[i]) + eps)`; see `reference.adagrad_update`."""
    rest = _state(state, weight.shape), eps
    _update(library.native.adagrad_update, weight, rows, grad, lr, rest, **options)


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
    """Adagrad with one sum a row; see `reference.rowwise_adagrad_update`."""
    if mean_squares is not None:
        # It asks other processes in the middle, which a kernel cannot.
        plain.rowwise_adagrad_update(
            weight, state, rows, grad, lr, eps, mean_squares=mean_squares, **options
        )
        return
    rest = _state(state, weight.shape[:1]), eps
    _update(library.native.rowwise_adagrad_update, weight, rows, grad, lr, rest, **options)


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
    """Adam; see `reference.adam_update`."""
    both = _state(moments, torch.Size((weight.shape[0], 2, weight.shape[1])))
    rate, eps = bias_corrected(lr, eps, step, beta1, beta2)
    rest = both, 1 - beta1, 1 - beta2, eps
    _update(library.native.adam_update, weight, rows, grad, rate, rest, **options)


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
    rest: tuple[float, ...],
    *,
    l2: float = 0.0,
    every_row: bool = False,
    lower: Tensor | None = None,
    seed: int = 0,
    bags: Tensor | None = None,
    scale: Tensor | None = None,
) -> None:
    count, dim = rows.shape[0], weight.shape[1]
    expected = (count if bags is None else grad.shape[0], dim)
    if grad.shape != expected:
        raise TypeError(f"gradient is {tuple(grad.shape)}, expected {expected}")
    for name, tensor, dtype in (("bags", bags, torch.int32), ("scale", scale, torch.float32)):
        if tensor is not None and (tensor.dtype, tensor.shape) != (dtype, rows.shape):
            raise TypeError(
                f"{name} is {tensor.dtype} {tuple(tensor.shape)}, expected {dtype} ({count},)"
            )
    if lower is not None and (lower.shape != weight.shape or lower.dtype != torch.int16):
        raise TypeError(f"lower half is {lower.dtype}, expected int16 of the weight's shape")
    rows, grad = rows.contiguous().long(), grad.float().contiguous()
    bags, scale = (None if t is None else t.contiguous() for t in (bags, scale))
    storage = 0 if weight.dtype == torch.float32 else 1 if lower is None else 2
    function(
        storage, weight.data_ptr(), pointer(lower), seed & 0xFFFFFFFF, rows.data_ptr(),
        grad.data_ptr(), pointer(bags), pointer(scale), count, dim, lr, torch.get_num_threads(), l2,
        weight.shape[0] if every_row else 0, *rest,
    )  # fmt: skip
    increment_version(weight)


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
    # Small batches notice each microsecond here and below, hence `map`.
    return (
        all(map(_IS_CPU, weights))
        and {*map(_DTYPE, weights)} <= {torch.float32}
        and {*map(_DTYPE, grads)} <= {*DTYPES}
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
    sizes = [*map(Tensor.numel, weights)]
    for what, tensors in (("gradient", grads), *(("optimizer state", state) for state in states)):
        if [*map(Tensor.numel, tensors)] != sizes:
            raise TypeError(f"{what} has {[*map(Tensor.numel, tensors)]} numbers, expected {sizes}")
    moments = [tensor for state in states for tensor in state]
    if not ({*map(_DTYPE, moments)} <= {torch.float32} and all(map(Tensor.is_contiguous, moments))):
        raise TypeError("optimizer state must be contiguous float32")
    # A table of six columns; native/dense.h says which.
    words = [
        *map(Tensor.data_ptr, weights),
        *map(Tensor.data_ptr, grads),
        *[dtype is torch.bfloat16 for dtype in map(_DTYPE, grads)],
        *sizes,
        *map(Tensor.data_ptr, moments),
    ]
    function(pack(f"{len(words)}q", *words), len(sizes), lr, decay, torch.get_num_threads(), *rest)
    increment_version(weights)
