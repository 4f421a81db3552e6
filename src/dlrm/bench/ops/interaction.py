"""Dot products of all pairs of vectors, forwards and backwards."""

from dataclasses import replace

import torch
from torch import Tensor

from dlrm.bench.cost import operator_work
from dlrm.bench.cost.work import Work
from dlrm.bench.ops import rotation
from dlrm.bench.ops.operator import Case, Need, Operator, Stock
from dlrm.bench.ops.setting import Setting
from dlrm.nn.interaction import Dot

CALLS = 53
"""What a run on a single sample takes, in smallest operations of torch; measured."""


def pairs(setting: Setting) -> int:
    """Return the pairs of a sample: of the dense vector and T others."""
    return setting.tables * (setting.tables + 1) // 2


def work(setting: Setting) -> Work:
    """Return what the interaction has to do, forwards and backwards, see `operator_work.dot`."""
    there, back = operator_work.dot(
        setting.batch, setting.tables + 1, setting.dim, pairs(setting), setting.precision
    )
    return replace(there + back, calls=CALLS)


def need(setting: Setting) -> Need:
    """Return the memory of inputs, and of results that are kept."""
    one = _turn_bytes(setting)
    return Need(inputs_bytes=(rotation.count(one) + 1) * one)


def build(setting: Setting, stock: Stock) -> Case:
    """Return interactions and their gradients."""
    dot = Dot(setting.tables, setting.dim)
    inputs = rotation.count(_turn_bytes(setting))
    narrow = torch.bfloat16 if setting.precision == "bf16" else torch.float32
    xs = rotation.normal(inputs, setting.batch, setting.dim, dtype=narrow)
    es = rotation.normal(inputs, setting.batch, setting.tables, setting.dim, dtype=torch.float32)
    grads = rotation.normal(inputs, setting.batch, dot.width, dtype=narrow)
    for tensor in (*xs, *es):
        tensor.requires_grad_()

    def run(given: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        x, e, grad = given
        out = dot(x, e)
        return out.detach(), *torch.autograd.grad(out, (x, e), grad)

    return Case(run, list(zip(xs, es, grads, strict=True)), inputs)


def _number_bytes(setting: Setting) -> int:
    return 2 if setting.precision == "bf16" else 4


def _x_bytes(setting: Setting) -> int:
    return _number_bytes(setting) * setting.batch * setting.dim


def _e_bytes(setting: Setting) -> int:
    return 4 * setting.vectors * setting.dim


def _out_bytes(setting: Setting) -> int:
    return _number_bytes(setting) * setting.batch * (setting.dim + pairs(setting))


def _turn_bytes(setting: Setting) -> int:
    """Return the bytes of vectors, outputs, and the gradients of all of them."""
    return 2 * (_x_bytes(setting) + _e_bytes(setting) + _out_bytes(setting))


INTERACTION = Operator(
    "interaction",
    "dot products of all pairs, forwards and backwards",
    ("batch", "tables", "dim", "precision", "threads"),
    work,
    need,
    build,
)
