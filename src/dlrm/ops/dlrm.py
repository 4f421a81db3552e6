"""The whole of a DLRM in one call forwards and one backwards, compiled (`native/dlrm.h`).

    x = bottom(dense);  e = weight[rows of ids];  logits = top(dot_interaction(x, e))

Its parts are those of `dlrm.ops.mlp`, `lookup` and `dot_interaction`, and give the same bits;
what goes are the calls between them, and trips of activations to memory.
"""

from collections.abc import Callable, Sequence
from ctypes import c_int64
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dlrm.ops import cpu
from dlrm.ops.cpu import library
from dlrm.ops.mlp import CODES, Products, pointers
from dlrm.ops.reference.lookup import sparse_gradient
from dlrm.ops.ways import Dtype, chosen_for

MOST_NARROW = 1024
"""Most samples of a batch in bfloat16 that go through a whole model at once: of more, the weights
of both MLPs push one another out of the cache, which costs 3% of a step of 2048."""


def chosen(
    dense: Tensor, ids: Tensor, weight: Tensor, mlps: Sequence[Sequence[Tensor]], dtype: Dtype
) -> Products | None:
    """Return how `dlrm` multiplies with these inputs and the parameters of bottom and top.

    None where its parts are to compute one after the other: they cannot be read, multiply in
    different ways or by torch's products, or the batch is a large one in bfloat16.
    """
    if not (
        (dtype == "fp32" or dense.shape[0] <= MOST_NARROW)
        and dense.dtype == torch.float32
        and dense.shape[0] > 0
        and ids.shape[0] == dense.shape[0]
        and dense.shape[1] == mlps[0][0].shape[1]
        and weight.dtype in cpu.DTYPES
        and weight.is_contiguous()
        and dense.is_cpu
        and weight.is_cpu
    ):
        return None
    bottom, top = mlps
    products = chosen_for(bottom, dtype, relu_last=True, rows=dense.shape[0])
    same = products == chosen_for(top, dtype, relu_last=False, rows=dense.shape[0])
    return products if same else None


def dlrm(
    dense: Tensor,
    ids: Tensor,
    starts: Tensor,
    sizes: Tensor,
    weight: Tensor,
    bottom: Sequence[Tensor],
    top: Sequence[Tensor],
    products: Products,
    *,
    self_interaction: bool,
    refuse: Callable[[int], Exception],
) -> Tensor:
    """Return the logits (B, K).

    Args:
        dense: (B, N) float32.
        ids: (B, T), of tables whose first rows in the weight are `starts` (T,), of `sizes` (T,).
        starts: (T,) int64.
        sizes: (T,) int64.
        weight: (R, D) float32 or bfloat16; its gradient is sparse, as that of `lookup`.
        bottom: Weight and bias of each layer N -> ... -> D, all with a ReLU.
        top: The same of D + pairs -> ... -> K, the last without one.
        products: How layers multiply, see `dlrm.ops.mlp.mlp`.
        self_interaction: Whether a vector also meets itself.
        refuse: Position of an id that is out of range -> the error.

    Raises:
        Exception: That of `refuse`.

    """
    ids = ids.contiguous()
    if ids.dtype != torch.int32:
        ids = ids.long()
    shape = (
        *_layers(dense.shape[1], bottom), *_layers(top[0].shape[1], top), dense.shape[0],
        CODES[products], ids.shape[1], self_interaction, weight.dtype == torch.bfloat16,
    )  # fmt: skip
    return _DLRM.apply(
        dense.contiguous(), ids, starts, sizes, weight, shape, refuse, len(bottom), *bottom, *top
    )


def _layers(inputs: int, parameters: Sequence[Tensor]) -> tuple[Any, int]:
    sizes = [inputs, *(bias.shape[0] for bias in parameters[1::2])]
    return (c_int64 * len(sizes))(*sizes), len(sizes) - 1


class _DLRM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        dense: Tensor,
        ids: Tensor,
        starts: Tensor,
        sizes: Tensor,
        weight: Tensor,
        shape: tuple[Any, ...],
        refuse: Callable[[int], Exception],
        below: int,
        *parameters: Tensor,
    ) -> Tensor:
        memory = torch.empty(library.native.dlrm_bytes(*shape) + 64, dtype=torch.uint8)
        rows = torch.empty(ids.shape, dtype=torch.int64)
        out = torch.empty(dense.shape[0], parameters[-1].shape[0])
        wrong = library.native.dlrm_forward(
            *shape, dense.data_ptr(), ids.data_ptr(), ids.dtype == torch.int64,
            starts.data_ptr(), sizes.data_ptr(), weight.data_ptr(), pointers(parameters[:below]),
            pointers(parameters[below:]), rows.data_ptr(), _aligned(memory), out.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        if wrong != -1:
            raise refuse(wrong)
        ctx.save_for_backward(dense, rows, memory, out, *parameters)
        ctx.shape, ctx.weight_shape, ctx.below = shape, weight.shape, below
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        dense, rows, memory, out, *parameters = ctx.saved_tensors
        below, grad = ctx.below, grad.contiguous()
        gradients = [torch.empty_like(p) for p in parameters]
        values = torch.empty(rows.numel(), ctx.weight_shape[1])
        library.native.dlrm_backward(
            *ctx.shape, dense.data_ptr(), pointers(parameters[:below]),
            pointers(parameters[below:]), _aligned(memory), out.data_ptr(), grad.data_ptr(),
            pointers(gradients[:below]), pointers(gradients[below:]), values.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        of_weight = None
        if ctx.needs_input_grad[4]:
            of_weight = sparse_gradient(rows, values, ctx.weight_shape)
        return None, None, None, None, of_weight, None, None, None, *gradients


def _aligned(memory: Tensor) -> int:
    return -(-memory.data_ptr() // 64) * 64
