"""The kernels in C++ for the CPU (`native/`), compiled at first use; see `build`.

The functions are those of `reference`, where their arguments are described. They take contiguous
tensors of the types that `DTYPES` names, and trust that rows came from `rows_of`: a row out of
range would read or write outside the table.
"""

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int, c_int64, c_uint32, c_void_p
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import increment_version

from dlrm.compiler import BuildError
from dlrm.ops import build
from dlrm.ops.reference import Pooling, bias_corrected, sparse_gradient

DTYPES = (torch.float32, torch.bfloat16)

_UPDATE = [
    c_int, c_void_p, c_void_p, c_uint32, c_void_p, c_void_p, c_int64, c_int64, c_float, c_int,
    c_float, c_int64,
]  # fmt: skip
_DENSE = [c_void_p, c_int64, c_float, c_float, c_int]
_DOT = [c_void_p, c_int, c_void_p, c_int]

_MLP = [c_void_p, c_int64, c_int64, c_int, c_int, c_int]

_ARGUMENTS: dict[str, list[type]] = {
    "rows_of": [c_void_p, c_int, *[c_void_p] * 3, *[c_int64] * 3, c_void_p, c_int],
    "lookup": [c_void_p, c_int, c_void_p, c_int64, c_int64, c_void_p, c_int],
    "pooled_lookup": [
        c_void_p, c_int, c_void_p, c_void_p, c_int64, c_int64, c_int, c_void_p, c_void_p, c_int,
    ],
    "spread_gradient": [
        c_void_p, c_void_p, c_int64, c_int64, c_int, c_void_p, c_void_p, c_int,
    ],
    "weights_gradient": [
        c_void_p, c_int, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_void_p, c_int,
    ],
    "sgd_update": _UPDATE,
    "adagrad_update": [*_UPDATE, c_void_p, c_float],
    "rowwise_adagrad_update": [*_UPDATE, c_void_p, c_float],
    "adam_update": [*_UPDATE, c_void_p, c_float, c_float, c_float],
    "dense_sgd": _DENSE,
    "dense_adagrad": [*_DENSE, c_float],
    "dense_adam": [*_DENSE, c_float, c_float, c_float],
    "dot_interaction": [*_DOT, c_int64, c_int64, c_int64, c_int, c_void_p, c_int],
    "dot_interaction_gradient": [
        *_DOT, c_void_p, c_int64, c_int64, c_int64, c_int, c_void_p, c_void_p, c_int,
    ],
    "relu_gradient": [c_void_p, c_void_p, c_int, c_int64, c_int64, c_void_p, c_void_p, c_int],
    "multiplies_bf16": [],
    "mlp_bytes": _MLP,
    "mlp_forward": [*_MLP, *[c_void_p] * 4, c_int],
    "mlp_backward": [*_MLP, *[c_void_p] * 7, c_int],
}  # fmt: skip
"""Exported function -> its arguments, as `native/kernels.cpp` declares them."""

_RESULTS: dict[str, type] = {"rows_of": c_int64, "multiplies_bf16": c_int, "mlp_bytes": c_int64}

_native: Any = None  # ctypes.CDLL, once `use` has loaded one
_isa = ""
_lock = Lock()


def use(isa: str) -> str | None:
    """Load the kernels for an instruction set, compiling them if need be.

    Returns:
        Why that cannot be done, or None.

    """
    global _native, _isa
    if isa not in build.supported():
        return f"this CPU has no {isa} (it has {', '.join(build.supported())})"
    with _lock:
        if _isa == isa:
            return None
        try:
            library = ctypes.CDLL(str(build.compiled(isa)))
        except (BuildError, OSError) as error:
            return str(error)
        for name, arguments in _ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes = arguments
            function.restype = _RESULTS.get(name)
        _native, _isa = library, isa
    return None


def available() -> str | None:
    """Return why these kernels cannot run here, or None; loads the fastest unless one is loaded."""
    return None if _native is not None else use(build.supported()[0])


def instruction_set() -> str:
    """Return the instruction set of the loaded kernels, e.g. `avx512`."""
    return _isa


def rows_of(
    ids: Tensor, starts: Tensor, sizes: Tensor, offsets: Tensor | None = None
) -> tuple[Tensor, int]:
    """Turn ids within a table into rows of the stacked tables; see `reference.rows_of`."""
    ids = ids.contiguous()
    if ids.dtype != torch.int32:
        ids = ids.long()
    if offsets is None:
        at, bags = None, ids.shape[0]
    else:
        offsets = offsets.contiguous().long()
        at, bags = offsets.data_ptr(), offsets.shape[0] - 1
    rows = torch.empty(ids.shape, dtype=torch.int64)
    wrong = _native.rows_of(
        ids.data_ptr(), ids.dtype == torch.int64, at, starts.data_ptr(), sizes.data_ptr(),
        ids.numel(), bags, starts.shape[0], rows.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return rows, wrong


def lookup(weight: Tensor, rows: Tensor) -> Tensor:
    """Return `weight[rows]`; see `reference.lookup`."""
    return _Lookup.apply(weight, rows.contiguous().long())


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = weight.shape
        dim = weight.shape[1]
        out = torch.empty(*rows.shape, dim)
        _native.lookup(
            weight.data_ptr(), weight.dtype == torch.bfloat16, rows.data_ptr(), rows.numel(), dim,
            out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (rows,) = ctx.saved_tensors
        return sparse_gradient(rows, grad, ctx.shape), None


def pooled_lookup(
    weight: Tensor,
    rows: Tensor,
    offsets: Tensor,
    *,
    mode: Pooling = "sum",
    per_sample_weights: Tensor | None = None,
) -> Tensor:
    """Return the sum or mean of the rows of each bag; see `reference.pooled_lookup`."""
    scale = None if per_sample_weights is None else per_sample_weights.float().contiguous()
    offsets = offsets.contiguous().long()
    return _Pooled.apply(weight, rows.contiguous().long(), offsets, mode == "mean", scale)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, rows: Tensor, offsets: Tensor, mean: bool, scale: Tensor | None
    ) -> Tensor:
        # The gradient of the scale needs the weight, that of the weight does not.
        needed = weight if scale is not None and scale.requires_grad else None
        ctx.save_for_backward(rows, offsets, scale, needed)
        ctx.shape, ctx.mean = weight.shape, mean
        bags, dim = offsets.shape[0] - 1, weight.shape[1]
        out = torch.empty(bags, dim)
        _native.pooled_lookup(
            weight.data_ptr(), weight.dtype == torch.bfloat16, rows.data_ptr(),
            offsets.data_ptr(), bags, dim, mean, _pointer(scale), out.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows, offsets, scale, weight = ctx.saved_tensors
        grad = grad.contiguous()
        bags, dim = grad.shape
        threads = torch.get_num_threads()
        values = d_scale = None
        if ctx.needs_input_grad[0]:
            values = torch.empty(rows.shape[0], dim)
            _native.spread_gradient(
                grad.data_ptr(), offsets.data_ptr(), bags, dim, ctx.mean, _pointer(scale),
                values.data_ptr(), threads,
            )  # fmt: skip
            values = sparse_gradient(rows, values, ctx.shape)
        if ctx.needs_input_grad[4]:
            d_scale = torch.empty(rows.shape[0])
            _native.weights_gradient(
                weight.data_ptr(), weight.dtype == torch.bfloat16, rows.data_ptr(),
                offsets.data_ptr(), grad.data_ptr(), bags, dim, d_scale.data_ptr(), threads,
            )  # fmt: skip
            if ctx.mean:
                lengths = offsets.diff()
                d_scale /= lengths.repeat_interleave(lengths, output_size=rows.shape[0])
        return values, None, None, None, d_scale


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


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
    _update(_native.sgd_update, weight, rows, grad, lr, l2, every_row, lower, seed)


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
        _native.adagrad_update, weight, rows, grad, lr, l2, every_row, lower, seed, square, eps
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
) -> None:
    """Adagrad with one sum a row; see `reference.rowwise_adagrad_update`."""
    square = _state(state, weight.shape[:1])
    _update(
        _native.rowwise_adagrad_update, weight, rows, grad, lr, l2, every_row, lower, seed,
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
        _native.adam_update, weight, rows, grad, rate, l2, every_row, lower, seed,
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
        storage, weight.data_ptr(), _pointer(lower), seed & 0xFFFFFFFF, rows.data_ptr(),
        grad.data_ptr(), count, dim, lr, torch.get_num_threads(), l2,
        weight.shape[0] if every_row else 0, *rest,
    )  # fmt: skip
    increment_version(weight)


def dense_sgd(
    weights: Sequence[Tensor], grads: Sequence[Tensor], lr: float, *, decay: float = 0.0
) -> None:
    """`w -= lr * (g + decay * w)` for every parameter; see `reference.dense_sgd`."""
    _dense(_native.dense_sgd, weights, grads, (), lr, decay)


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
    _dense(_native.dense_adagrad, weights, grads, (states,), lr, decay, eps)


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
        _native.dense_adam, weights, grads, (firsts, seconds), rate, decay,
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
    for what, tensors in (("gradient", grads), *(("optimizer state", each) for each in states)):
        if [*map(Tensor.numel, tensors)] != sizes:
            raise TypeError(f"{what} has {[*map(Tensor.numel, tensors)]} numbers, expected {sizes}")
    kept = [tensor for each in states for tensor in each]
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


def dot_interaction(x: Tensor, e: Tensor, self_interaction: bool) -> Tensor:
    """Return x and the dot product of every pair; see `reference.dot_interaction`."""
    return _Dot.apply(x.contiguous(), e.contiguous(), self_interaction)


class _Dot(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, e: Tensor, self_interaction: bool) -> Tensor:
        ctx.save_for_backward(x, e)
        ctx.self_interaction = self_interaction
        batch, tables, dim = e.shape
        pairs = (tables + 1) * (tables + 2 if self_interaction else tables) // 2
        out = x.new_empty(batch, dim + pairs)
        _native.dot_interaction(
            x.data_ptr(), x.dtype == torch.bfloat16, e.data_ptr(), e.dtype == torch.bfloat16,
            batch, tables, dim, self_interaction, out.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, e = ctx.saved_tensors
        grad = grad.contiguous()
        batch, tables, dim = e.shape
        dx, de = torch.empty_like(x), torch.empty_like(e)
        _native.dot_interaction_gradient(
            x.data_ptr(), x.dtype == torch.bfloat16, e.data_ptr(), e.dtype == torch.bfloat16,
            grad.data_ptr(), batch, tables, dim, ctx.self_interaction, dx.data_ptr(),
            de.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return dx, de, None


def relu_gradient(grad: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the gradient before a ReLU, and its sum; see `reference.relu_gradient`."""
    grad = grad.contiguous()
    y = None if y is None else y.contiguous()
    batch, width = grad.shape
    out, total = torch.empty_like(grad), torch.empty(width)
    _native.relu_gradient(
        grad.data_ptr(), None if y is None else y.data_ptr(), grad.dtype == torch.bfloat16,
        batch, width, out.data_ptr(), total.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out, total
