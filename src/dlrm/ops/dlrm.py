"""The whole of a DLRM in one call forwards and one backwards, or in one for both, compiled.

    x = bottom(dense);  e = weight[rows of ids];  logits = top(dot_interaction(x, e))

Its parts are those of `dlrm.ops.mlp`, `lookup`, `dot_interaction` and `bce`, and give the same
bits; what goes are the calls between them, and trips of activations to memory (`native/dlrm.h`).
"""

from collections.abc import Callable, Sequence
from ctypes import c_int64
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dlrm.ops import cpu
from dlrm.ops.cpu import library
from dlrm.ops.mlp import CODES, Products, pointers
from dlrm.ops.reference.lookup import sparse_gradient
from dlrm.ops.table_gradient import Gradients, TableGradient
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


class Inputs(NamedTuple):
    """A batch, and the parameters of a whole DLRM."""

    dense: Tensor
    """(B, N) float32."""
    ids: Tensor
    """(B, T), of tables whose rows lie in the weight one after another."""
    starts: Tensor
    """(T,) int64, first row of each table in the weight."""
    sizes: Tensor
    """(T,) int64, rows of each table."""
    weight: Tensor
    """(R, D) float32 or bfloat16; its gradient is sparse, as that of `lookup`."""
    bottom: Sequence[Tensor]
    """Weight and bias of each layer N -> ... -> D, all with a ReLU."""
    top: Sequence[Tensor]
    """The same of D + pairs -> ... -> K, the last without a ReLU."""
    products: Products
    """How layers multiply, see `dlrm.ops.mlp.mlp`."""
    self_interaction: bool
    """Whether a vector also meets itself."""
    refuse: Callable[[int], Exception]
    """Position of an id that is out of range -> the error."""

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """Those of the MLPs."""
        return (*self.bottom, *self.top)

    def shape(self) -> tuple[Any, ...]:
        """Return what kernels know of the model and of the size of the batch."""
        return (
            *_layers(self.dense.shape[1], self.bottom), *_layers(self.top[0].shape[1], self.top),
            self.dense.shape[0], CODES[self.products], self.ids.shape[1], self.self_interaction,
            self.weight.dtype == torch.bfloat16,
        )  # fmt: skip

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return dense features and ids as kernels read them."""
        ids = self.ids if self.ids.dtype == torch.int32 else self.ids.long()
        return self.dense.contiguous(), ids.contiguous()


class Call:
    """A whole DLRM on a batch: what its kernels read, forwards and then backwards."""

    def __init__(self, inputs: Inputs):
        self.weight, self.parameters = inputs.weight, inputs.parameters
        self._below, self._refuse = len(inputs.bottom), inputs.refuse
        self._shape = inputs.shape()
        # The kernels have addresses alone.
        self._kept = dense, ids = inputs.batch()
        self._rows = torch.empty(ids.shape, dtype=torch.int64)
        self._inputs = (
            dense.data_ptr(), ids.data_ptr(), ids.dtype == torch.int64, *_addresses(inputs),
            self._rows.data_ptr(),
        )  # fmt: skip

    def forward(self) -> Activations:
        """Return the logits, and what the way back needs; autograd sees none of it.

        Raises:
            Exception: That of `refuse`.

        """
        memory = torch.empty(library.native.dlrm_bytes(*self._shape) + 64, dtype=torch.uint8)
        logits = torch.empty(self._rows.shape[0], self.parameters[-1].shape[0])
        wrong = library.native.dlrm_forward(
            *self._shape, *self._inputs, _aligned(memory), logits.data_ptr(),
            torch.get_num_threads(),
        )  # fmt: skip
        if wrong != -1:
            raise self._refuse(wrong)
        return Activations(self._rows, memory, logits)

    def backward(self, activations: Activations, grad: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the gradients of weight and parameters, from that of the logits (B, K).

        Parameters and inputs must not have changed since `forward`.
        """
        grad, memory = grad.contiguous(), activations.memory
        gradients = [*map(torch.empty_like, self.parameters)]
        values = torch.empty(self._rows.numel(), self.weight.shape[1])
        below = self._below
        library.native.dlrm_backward(
            *self._shape, *self._inputs, _aligned(memory), activations.logits.data_ptr(),
            grad.data_ptr(), pointers(gradients[:below]), pointers(gradients[below:]),
            values.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return sparse_gradient(self._rows, values, self.weight.shape), gradients


class Step:
    """Loss, logits and gradients of a whole DLRM on a batch, in one call.

    One object serves the steps of many batches, as long as it `fits` them: it keeps what kernels
    are told of the parameters, and the memory of the gradients.
    """

    def __init__(self, inputs: Inputs):
        self._made_of = _made_of(inputs)
        # Of others that come to lie there, addresses and names would be those of these.
        self._kept = _tensors(inputs)
        self._shape = inputs.shape()
        looked_up = inputs.ids.numel()
        rows = torch.empty(looked_up, dtype=torch.int64)
        values = torch.empty(looked_up, inputs.weight.shape[1], dtype=torch.float32)
        below, above = ([*map(torch.empty_like, mlp)] for mlp in (inputs.bottom, inputs.top))
        self.gradients: Gradients = {
            **dict(zip(inputs.parameters, (*below, *above), strict=True)),
            inputs.weight: TableGradient(rows, values),
        }
        """Those of the last call."""
        self._parameters = *_addresses(inputs), rows.data_ptr()
        self._gradients = pointers(below), pointers(above), values.data_ptr()
        self._labels = inputs.top[-1].shape[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> "Step":
        """Return this one, which fits no copy of a model, so that a copy makes its own."""
        return self

    def fits(self, inputs: Inputs) -> bool:
        """Return whether a step of these inputs would be made as this one is."""
        return _made_of(inputs) == self._made_of

    def __call__(self, inputs: Inputs, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean binary cross-entropy and logits (B, K); `gradients` are theirs then.

        Args:
            inputs: That it `fits`.
            labels: (B, K) float32.

        Raises:
            ValueError: The labels have another shape.
            Exception: That of `refuse`.

        """
        shape = torch.Size((inputs.dense.shape[0], self._labels))
        if labels.shape != shape:
            raise ValueError(f"labels are {tuple(labels.shape)}, expected {tuple(shape)}")
        loss, logits = torch.empty((), dtype=torch.float32), torch.empty(shape, dtype=torch.float32)
        labels = labels.contiguous()
        dense, ids = inputs.batch()
        wrong = library.native.dlrm_step(
            *self._shape, dense.data_ptr(), ids.data_ptr(), ids.dtype == torch.int64,
            *self._parameters, labels.data_ptr(), logits.data_ptr(), loss.data_ptr(),
            *self._gradients, torch.get_num_threads(),
        )  # fmt: skip
        if wrong != -1:
            raise inputs.refuse(wrong)
        return loss, logits


def dlrm(call: Call) -> Tensor:
    """Return the logits (B, K) of a call, for autograd.

    Raises:
        Exception: An id is out of range.

    """
    return _DLRM.apply(call, call.weight, *call.parameters)


def _layers(inputs: int, parameters: Sequence[Tensor]) -> tuple[Any, int]:
    sizes = [inputs, *(bias.shape[0] for bias in parameters[1::2])]
    return (c_int64 * len(sizes))(*sizes), len(sizes) - 1


def _addresses(inputs: Inputs) -> tuple[Any, ...]:
    """Return where parameters are, as the kernels take it."""
    return (
        inputs.starts.data_ptr(), inputs.sizes.data_ptr(), inputs.weight.data_ptr(),
        pointers(inputs.bottom), pointers(inputs.top),
    )  # fmt: skip


def _tensors(inputs: Inputs) -> tuple[Tensor, ...]:
    """Return what kernels read that is no part of a batch."""
    return (inputs.starts, inputs.sizes, inputs.weight, *inputs.bottom, *inputs.top)


def _made_of(inputs: Inputs) -> tuple[object, ...]:
    """Return all of the inputs that a `Step` is made of, in a form that can be compared.

    `chosen` has seen to it that parameters are contiguous, and those of the MLPs float32.
    """
    tensors = _tensors(inputs)
    return (
        inputs.dense.shape, inputs.ids.shape, inputs.weight.dtype, len(inputs.bottom),
        inputs.products, inputs.self_interaction, [*map(id, tensors)],
        [*map(Tensor.data_ptr, tensors)], [*map(Tensor.size, tensors)],
    )  # fmt: skip


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
        weight, parameters = ctx.call.backward(Activations(rows, memory, logits), grad)
        return None, weight if ctx.needs_input_grad[1] else None, *parameters


def _aligned(memory: Tensor) -> int:
    return -(-memory.data_ptr() // 64) * 64
