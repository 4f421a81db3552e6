"""The whole of a DLRM in one call forwards and one backwards, or in one for both, compiled.

    x = bottom(dense);  e = weight[rows of ids];  logits = top(dot_interaction(x, e))

Its parts are those of `dlrm.ops.mlp`, `lookup`, `dot_interaction` and `bce`, and give the same
bits; what goes are the calls between them, and trips of activations to memory (`native/dlrm.h`).
"""

from collections.abc import Callable, Sequence
from ctypes import byref, c_double, c_int64
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dlrm.ops import cpu
from dlrm.ops.cpu import library
from dlrm.ops.mlp import CODES, Products, pointers
from dlrm.ops.reference.lookup import sparse_gradient
from dlrm.ops.ways import Dtype, chosen_for


def chosen(
    dense: Tensor, ids: Tensor, weight: Tensor, mlps: Sequence[Sequence[Tensor]], dtype: Dtype
) -> Products | None:
    """Return how `dlrm` multiplies with these inputs and the parameters of bottom and top.

    None where its parts are to compute one after the other: they cannot be read, or multiply by
    torch's products.
    """
    if not (
        dense.dtype == torch.float32
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
    return chosen_for((*bottom, *top), dtype, rows=dense.shape[0])


class Activations(NamedTuple):
    """What a way forwards leaves."""

    rows: Tensor
    """(B, T) int64, that were looked up."""
    memory: Tensor
    """Of the kernels: inputs of all layers, and vectors."""
    logits: Tensor
    """(B, K)."""


class Gradients(NamedTuple):
    """Of the weight, sparse, and of all parameters of the MLPs."""

    weight: Tensor
    parameters: list[Tensor]


class Call:
    """A whole DLRM on a batch: what its kernels read, forwards and then backwards.

    Args:
        dense: (B, N) float32.
        ids: (B, T), of tables whose first rows in the weight are `starts` (T,), of `sizes` (T,).
        starts: (T,) int64.
        sizes: (T,) int64.
        weight: (R, D) float32 or bfloat16; its gradient is sparse, as that of `lookup`.
        mlps: Weight and bias of each layer N -> ... -> D, all with a ReLU, and the same of
            D + pairs -> ... -> K, the last without one.
        products: How layers multiply, see `dlrm.ops.mlp.mlp`.
        self_interaction: Whether a vector also meets itself.
        refuse: Position of an id that is out of range -> the error.

    """

    def __init__(
        self,
        dense: Tensor,
        ids: Tensor,
        starts: Tensor,
        sizes: Tensor,
        weight: Tensor,
        mlps: Sequence[Sequence[Tensor]],
        products: Products,
        *,
        self_interaction: bool,
        refuse: Callable[[int], Exception],
    ):
        bottom, top = mlps
        dense, ids = dense.contiguous(), ids.contiguous()
        ids = ids if ids.dtype == torch.int32 else ids.long()
        self.weight, self.parameters = weight, (*bottom, *top)
        self._below, self._refuse = len(bottom), refuse
        self._shape = (
            *_layers(dense.shape[1], bottom), *_layers(top[0].shape[1], top), dense.shape[0],
            CODES[products], ids.shape[1], self_interaction, weight.dtype == torch.bfloat16,
        )  # fmt: skip
        self._rows = torch.empty(ids.shape, dtype=torch.int64)
        self._inputs = (
            dense.data_ptr(), ids.data_ptr(), ids.dtype == torch.int64, starts.data_ptr(),
            sizes.data_ptr(), weight.data_ptr(), pointers(bottom), pointers(top),
            self._rows.data_ptr(),
        )  # fmt: skip
        # The kernels have addresses alone.
        self._kept = dense, ids, starts, sizes

    def forward(self) -> Activations:
        """Return the logits, and what the way back needs; autograd sees none of it.

        Raises:
            Exception: That of `refuse`.

        """
        memory = torch.empty(library.native.dlrm_bytes(*self._shape) + 64, dtype=torch.uint8)
        logits = self._logits()
        wrong = library.native.dlrm_forward(
            *self._shape, *self._inputs, _aligned(memory), logits.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        if wrong != -1:
            raise self._refuse(wrong)
        return Activations(self._rows, memory, logits)

    def backward(self, activations: Activations, grad: Tensor) -> Gradients:
        """Return the gradients, from that of the logits (B, K).

        Parameters and inputs must not have changed since `forward`.
        """
        grad, memory = grad.contiguous(), activations.memory
        gradients, addresses = self._gradients()
        library.native.dlrm_backward(
            *self._shape, *self._inputs, _aligned(memory), activations.logits.data_ptr(),
            grad.data_ptr(), *addresses, torch.get_num_threads(),
        )  # fmt: skip
        return gradients

    def step(self, labels: Tensor) -> tuple[Tensor, Tensor, Gradients]:
        """Return loss, logits (B, K) and gradients, for the mean binary cross-entropy.

        Args:
            labels: (B, K) float32.

        Raises:
            ValueError: The labels have another shape.
            Exception: That of `refuse`.

        """
        logits, loss = self._logits(), c_double()
        if labels.shape != logits.shape:
            raise ValueError(f"labels are {tuple(labels.shape)}, expected {tuple(logits.shape)}")
        labels = labels.contiguous()
        gradients, addresses = self._gradients()
        wrong = library.native.dlrm_step(
            *self._shape, *self._inputs, labels.data_ptr(), logits.data_ptr(), byref(loss),
            *addresses, torch.get_num_threads(),
        )  # fmt: skip
        if wrong != -1:
            raise self._refuse(wrong)
        return torch.tensor(loss.value, dtype=torch.float32), logits, gradients

    def _logits(self) -> Tensor:
        return torch.empty(self._rows.shape[0], self.parameters[-1].shape[0])

    def _gradients(self) -> tuple[Gradients, tuple[Any, ...]]:
        """Return memory for gradients, and its addresses as the kernels take them."""
        gradients = [*map(torch.empty_like, self.parameters)]
        values = torch.empty(self._rows.numel(), self.weight.shape[1])
        below = self._below
        addresses = pointers(gradients[:below]), pointers(gradients[below:]), values.data_ptr()
        return Gradients(
            sparse_gradient(self._rows, values, self.weight.shape), gradients
        ), addresses


def dlrm(call: Call) -> Tensor:
    """Return the logits (B, K) of a call, for autograd.

    Raises:
        Exception: An id is out of range.

    """
    return _DLRM.apply(call, call.weight, *call.parameters)


def _layers(inputs: int, parameters: Sequence[Tensor]) -> tuple[Any, int]:
    sizes = [inputs, *(bias.shape[0] for bias in parameters[1::2])]
    return (c_int64 * len(sizes))(*sizes), len(sizes) - 1


class _DLRM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, weight: Tensor, *parameters: Tensor) -> Tensor:
        activations = call.forward()
        ctx.save_for_backward(*activations, *parameters)
        ctx.call = call
        return activations.logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # Asked for with the parameters: autograd refuses if somebody has changed them.
        rows, memory, logits, *_ = ctx.saved_tensors
        of = ctx.call.backward(Activations(rows, memory, logits), grad)
        return None, of.weight if ctx.needs_input_grad[1] else None, *of.parameters


def _aligned(memory: Tensor) -> int:
    return -(-memory.data_ptr() // 64) * 64
