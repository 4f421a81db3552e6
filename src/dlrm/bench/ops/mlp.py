"""A multi-layer perceptron, forwards and backwards."""

from dataclasses import replace

import torch
from torch import Tensor

from dlrm.bench.cost import operator_work
from dlrm.bench.cost.work import Work
from dlrm.bench.ops import rotation
from dlrm.bench.ops.operator import Case, Need, Operator, Stock
from dlrm.bench.ops.setting import Setting
from dlrm.nn.mlp import MLP

CALLS, LAYER_CALLS = 67, 14
"""What a run on a single sample takes, in smallest operations of torch, and what each of its layers
adds; measured."""


def work(setting: Setting) -> Work:
    """Return what all layers have to do, forwards and backwards, see `operator_work.mlp`."""
    there, back = operator_work.mlp(
        setting.widths, setting.batch, setting.precision, needs_input_gradient=True
    )
    return replace(there + back, calls=CALLS + LAYER_CALLS * len(setting.layers))


def need(setting: Setting) -> Need:
    """Return the memory of inputs, of results that are kept, and of one batch of activations."""
    one = _turn_bytes(setting)
    batch_bytes = 2 * _number_bytes(setting) * setting.batch * sum(setting.widths)
    return Need(inputs_bytes=(rotation.count(one) + 1) * one + batch_bytes)


def build(setting: Setting, stock: Stock) -> Case:
    """Return passes forwards and backwards, up to the gradient of the inputs."""
    net = MLP(setting.widths, relu_last=True, dtype=setting.precision)
    parameters = list(net.parameters())
    inputs = rotation.count(_turn_bytes(setting))
    dtype = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    xs = rotation.normal(inputs, setting.batch, setting.widths[0], dtype=dtype)
    scale = 1 / setting.batch
    grads = rotation.normal(inputs, setting.batch, setting.widths[-1], scale=scale, dtype=dtype)
    for x in xs:
        x.requires_grad_()

    def run(given: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        x, grad = given
        out = net(x)
        return out.detach(), *torch.autograd.grad(out, (x, *parameters), grad)

    return Case(run, list(zip(xs, grads, strict=True)), inputs)


def _number_bytes(setting: Setting) -> int:
    return 2 if setting.precision == "bf16" else 4


def _turn_bytes(setting: Setting) -> int:
    """Return the bytes of inputs, outputs, and the gradients of all, parameters among them."""
    numbers = setting.batch * (setting.widths[0] + setting.widths[-1])
    return 2 * _number_bytes(setting) * numbers + 4 * setting.parameters


MLP_PASSES = Operator(
    "mlp",
    "all layers, forwards and backwards",
    ("batch", "precision", "widths", "threads"),
    work,
    need,
    build,
)
