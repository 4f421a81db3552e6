"""All layers of an MLP in one call, forwards and backwards, compiled (`native/mlp.h`).

At small batches the calls for each product, cast, ReLU and bias cost as much as they do; here a
step has two calls for an MLP, activations stay in the cache from layer to layer, and what belongs
to a product is done to its sums before they leave the registers. Weights are read in float32 and
rounded anew in each call, so there is no copy of them that could be out of date; `Packed` is such a
copy, for weights that no longer change.
"""

from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dlrm.ops.cpu import library
from dlrm.ops.cpu.library import pointer

Products = Literal["fp32", "bf16", "tiles", "emulated"]
"""How layers multiply: floats, pairs of bfloat16 (AVX512-BF16), these in tiles (AMX), or in tiles
that are emulated."""
CODES: dict[Products, int] = {"fp32": 0, "bf16": 1, "tiles": 2, "emulated": 3}
"""As `native/mlp.h` numbers them."""


@dataclass(frozen=True, slots=True)
class Dropout:
    """What training sets to zero after each ReLU; the rest grows so that the mean stays.

    Args:
        drawn: Of each layer with a ReLU (B * k,) int16, uniform over all of its values, and 32 more
            numbers, which do not count: kernels read whole vectors, or tiles.
        share: Of the activations that are dropped, in [0, 1).

    """

    drawn: Sequence[Tensor]
    share: float

    @property
    def least(self) -> int:
        """What is drawn where an activation is kept, at least."""
        return min(round(self.share * 2**16), 2**16 - 1) - 2**15

    @property
    def scale(self) -> float:
        """What activations that are kept are multiplied by."""
        return 1 / (1 - self.share)

    @staticmethod
    def draws(count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return int16 numbers to drop by, for `count` activations.

        Four of them come from one number of 64 bits: a sixth of the time that `bernoulli_` takes.
        """
        whole = torch.empty(-(-count // 4) + 8, dtype=torch.int64)
        whole[:-8].random_(-(2**63), None, generator=generator)
        whole[-8:] = 0
        return whole.view(torch.int16)


def mlp(
    x: Tensor,
    parameters: Sequence[Tensor],
    products: Products,
    *,
    relu_last: bool,
    dropout: Dropout | None = None,
) -> Tensor:
    """Return `dropout(relu(W x + b))`, layer after layer.

    Args:
        x: (B, n), float32 or bfloat16.
        parameters: Weight (k, n) and bias (k,) of each layer, contiguous float32.
        products: How layers multiply; sums are float32, activations between layers as what is
            multiplied. A last layer without ReLU is computed in float32: bfloat16 keeps three
            digits, too few for a logit.
        relu_last: Whether the last layer has its ReLU too.
        dropout: What is dropped; None for nothing.

    Returns:
        (B, sizes[-1]) of the products' type with a last ReLU, float32 without. Gradients of
        parameters are float32, that of x has its type.

    """
    if not torch.is_grad_enabled():
        shape = _shape(x, parameters, products, relu_last)
        return _forward(x, shape, parameters, None, None, dropout)
    return _MLP.apply(x, products, relu_last, dropout, *parameters)


class Packed:
    """An MLP whose weights no longer change: rounded and laid out once, for many calls of `mlp`.

    A call gives the bits of `mlp`, without a gradient, and keeps nothing for one. Of few samples it
    takes a fraction of the time, in one thread; any number of threads may call it.
    """

    def __init__(self, parameters: Sequence[Tensor], products: Products, *, relu_last: bool):
        self._code, self._relu_last = CODES[products], relu_last
        sizes = [parameters[0].shape[1], *(bias.shape[0] for bias in parameters[1::2])]
        self._inputs, self._sizes = sizes[0], (c_int64 * len(sizes))(*sizes)
        shape = self._shape(1, narrow_x=False)
        self._memory = torch.empty(library.native.mlp_packed_bytes(*shape), dtype=torch.uint8)
        library.native.mlp_pack(
            *shape, pointers(parameters), self._memory.data_ptr(), torch.get_num_threads()
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Map (B, n), float32 or bfloat16, to what `mlp` gives."""
        shape = self._shape(x.shape[0], narrow_x=x.dtype == torch.bfloat16)
        return _forward(x, shape, None, self._memory, None)

    def _shape(self, samples: int, *, narrow_x: bool) -> tuple[Any, ...]:
        sizes = self._sizes
        return sizes, len(sizes) - 1, samples, self._code, self._relu_last, narrow_x


def _shape(
    x: Tensor, parameters: Sequence[Tensor], products: Products, relu_last: bool
) -> tuple[Any, ...]:
    """Return what the kernels need to know of an MLP and its inputs."""
    sizes = [x.shape[1], *(bias.shape[0] for bias in parameters[1::2])]
    return (
        (c_int64 * len(sizes))(*sizes), len(sizes) - 1, x.shape[0], CODES[products],
        relu_last, x.dtype == torch.bfloat16,
    )  # fmt: skip


def _forward(
    x: Tensor,
    shape: tuple[Any, ...],
    parameters: Sequence[Tensor] | None,
    packed: Tensor | None,
    h: Tensor | None,
    dropout: Dropout | None = None,
) -> Tensor:
    """Return the outputs (B, sizes[-1]).

    `parameters` are None where they are `packed`; the inputs of all layers stay in `h` for the
    backward pass, None where none follows.
    """
    x = x.contiguous()
    sizes, layers, samples, code, relu_last, _ = shape
    dtype = torch.bfloat16 if code and relu_last else torch.float32
    out = torch.empty(samples, sizes[layers], dtype=dtype)
    library.native.mlp_forward(
        *shape, x.data_ptr(), None if parameters is None else pointers(parameters),
        pointer(packed), pointer(h), out.data_ptr(),
        None if dropout is None else pointers(dropout.drawn),
        0 if dropout is None else dropout.least, 1.0 if dropout is None else dropout.scale,
        torch.get_num_threads(),
    )  # fmt: skip
    return out


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        products: Products,
        relu_last: bool,
        dropout: Dropout | None,
        *parameters: Tensor,
    ) -> Tensor:
        x = x.contiguous()
        shape = _shape(x, parameters, products, relu_last)
        # The inputs of all layers, as the backward pass reads them.
        h = torch.empty(library.native.mlp_bytes(*shape), dtype=torch.uint8)
        out = _forward(x, shape, parameters, None, h, dropout)
        ctx.save_for_backward(x, h, out, *parameters)
        ctx.shape, ctx.scale = shape, 1.0 if dropout is None else dropout.scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, h, out, *parameters = ctx.saved_tensors
        grad = grad.to(out.dtype).contiguous()
        gradients = [torch.empty_like(p) for p in parameters]
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        library.native.mlp_backward(
            *ctx.shape, x.data_ptr(), pointers(parameters), h.data_ptr(), out.data_ptr(),
            grad.data_ptr(), pointers(gradients), None if dx is None else dx.data_ptr(),
            ctx.scale, torch.get_num_threads(),
        )  # fmt: skip
        return dx, None, None, None, *gradients


def pointers(tensors: Sequence[Tensor]) -> Any:
    """Return the addresses of tensors as an array of C."""
    return (c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))
