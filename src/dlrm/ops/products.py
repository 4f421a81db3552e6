"""The layers of an MLP by torch's matrix products, where `dlrm.ops.mlp` does not run."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrm.ops import backend, forced_reference


def mlp(x: Tensor, parameters: Sequence[Tensor], dtype: torch.dtype, *, relu_last: bool) -> Tensor:
    """Return `relu(W x + b)`, layer after layer; see `dlrm.ops.mlp.mlp`."""
    return _MLP.apply(x, relu_last, dtype, *parameters)


class Rounded:
    """An MLP whose weights no longer change: in the type of its products, for many calls of `mlp`.

    A call gives the bits of `mlp`, without a gradient; any number of threads may call it.
    """

    def __init__(self, parameters: Sequence[Tensor], dtype: torch.dtype, *, relu_last: bool):
        self._layers = _rounded(parameters, dtype, relu_last=relu_last)

    def __call__(self, x: Tensor) -> Tensor:
        """Map (B, n) to what `mlp` gives."""
        for weight, bias, relu in self._layers:
            x = linear(x.to(weight.dtype), weight, bias, relu=relu)
        return x


def _rounded(
    parameters: Sequence[Tensor], dtype: torch.dtype, *, relu_last: bool
) -> list[tuple[Tensor, Tensor, bool]]:
    """Return weight and bias of each layer as its product takes them, and if it has a ReLU."""
    layers = []
    for i, (weight, bias) in enumerate(zip(parameters[0::2], parameters[1::2], strict=True)):
        relu = relu_last or 2 * i < len(parameters) - 2
        layer_dtype = dtype if relu else torch.float32
        layers.append((weight.to(layer_dtype), bias.to(layer_dtype), relu))
    return layers


class _MLP(torch.autograd.Function):
    """All layers of an MLP, with products of `dtype`.

    h_0 = x, h_i = relu(h_{i-1} W_i^T + b_i). Backwards, with g_i the gradient of h_i W^T + b:
    dW = g^T h, db = 1^T g, g_{i-1} = g_i W where h_{i-1} > 0.

    One function for the whole MLP, because at small batches autograd's bookkeeping for each
    product, cast and ReLU costs as much as they do. In bfloat16 all operands are rounded to it,
    products are summed in float32 and rounded once; a last layer without ReLU is computed in
    float32, because bfloat16 keeps three digits, too few for a logit.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, relu_last: bool, dtype: torch.dtype, *parameters: Tensor
    ) -> Tensor:
        h = x
        inputs, outputs, weights = [], [], []
        for weight, bias, relu in _rounded(parameters, dtype, relu_last=relu_last):
            h = h.to(weight.dtype)
            inputs.append(h)
            h = linear(h, weight, bias, relu=relu)
            outputs.append(h)
            weights.append(weight)
        # Parameters are kept beside their copies so that autograd sees whether they change.
        ctx.save_for_backward(*inputs, *outputs, *weights, *parameters)
        ctx.relu_last, ctx.x_dtype = relu_last, x.dtype
        return h

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        layers = len(saved) // 5
        inputs, outputs, weights = (saved[i * layers : (i + 1) * layers] for i in range(3))
        g = grads[0]
        of_parameters: Sequence[Tensor] = []
        for i in reversed(range(layers)):
            y = outputs[i] if ctx.relu_last or i < layers - 1 else None
            g, of_bias = backend(outputs[i]).relu_gradient(g.to(outputs[i].dtype), y)
            narrow = g.dtype == torch.bfloat16
            of_parameters += [of_bias, (g.t() @ inputs[i]).float()]
            if i > 0 or ctx.needs_input_grad[0]:
                g = g @ weights[i] if narrow else linear(g, weights[i].t())
        of_x = g.to(ctx.x_dtype) if ctx.needs_input_grad[0] else None
        return of_x, None, None, *reversed(of_parameters)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """Return x W^T + b, with its ReLU in the same pass where oneDNN multiplies.

    x (B, n), the weight (k, n) and the bias (k,), or None, are of one type.
    """
    if not weight.shape[1] and torch.compiler.is_exporting():
        # Without inputs it is its bias; not all runtimes have such products.
        zeros = x.new_zeros(x.shape[0], weight.shape[0])
        out = zeros if bias is None else zeros + bias
        return torch.relu(out) if relu else out
    if _onednn(x, weight):
        pointwise = "relu" if relu else "none"
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, pointwise, [], "")
    out = F.linear(x, weight, bias)
    return torch.relu_(out) if relu else out


def _onednn(x: Tensor, weight: Tensor) -> bool:
    """Return whether oneDNN computes x W^T; torch asks MKL for float32.

    The same for any number of samples, because a score must not depend on how many others there
    are. `$DLRM_KERNELS` of reference asks for plain torch, which computes alike on every device.
    """
    # oneDNN has no products of nothing, and other runtimes none of its.
    if torch.compiler.is_exporting() or not (x.is_cpu and x.numel() > 0):
        return False
    if forced_reference() or not torch.backends.mkldnn.is_available():
        return False
    if x.dtype == torch.bfloat16:
        return takes_bf16()
    return x.dtype == torch.float32 and weight.numel() >= ONEDNN_WEIGHTS


@cache
def takes_bf16() -> bool:
    """Return whether oneDNN multiplies bfloat16 here, which it does from AVX-512 on."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


ONEDNN_WEIGHTS = 16384
"""Weights of a layer from which oneDNN is taken in float32; MKL has less to do before a small one.
"""
