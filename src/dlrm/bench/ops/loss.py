"""Binary cross-entropy and its gradient."""

from dataclasses import replace

import torch
from torch import Tensor

from dlrm.bench.batches import CLICK_RATE
from dlrm.bench.cost import operator_work
from dlrm.bench.cost.work import Work
from dlrm.bench.ops import rotation
from dlrm.bench.ops.operator import Case, Need, Operator, Stock
from dlrm.bench.ops.setting import Setting
from dlrm.training.loss import bce

SAMPLE_BYTES = 4 + 4 + 4
"""A logit, a label and a gradient."""

CALLS = 32
"""What a run on a single sample takes, in smallest operations of torch; measured."""


def work(setting: Setting) -> Work:
    """Return what the loss has to do, forwards and backwards, see `operator_work.loss`."""
    there, back = operator_work.loss(setting.batch)
    return replace(there + back, calls=CALLS)


def need(setting: Setting) -> Need:
    """Return the memory of logits and labels, and of gradients that are kept."""
    one = SAMPLE_BYTES * setting.batch
    return Need(inputs_bytes=(rotation.count(one) + 1) * one)


def build(setting: Setting, stock: Stock) -> Case:
    """Return losses and their gradients."""
    inputs = rotation.count(SAMPLE_BYTES * setting.batch)
    logits = rotation.normal(inputs, setting.batch, dtype=torch.float32)
    for values in logits:
        values.requires_grad_()
    labels = torch.rand(inputs, setting.batch).lt_(CLICK_RATE).unbind()

    def run(given: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        logits, labels = given
        return torch.autograd.grad(bce(logits, labels), logits)

    return Case(run, list(zip(logits, labels, strict=True)), inputs)


LOSS = Operator(
    "loss",
    "binary cross-entropy, forwards and backwards",
    ("batch", "threads"),
    work,
    need,
    build,
)
