"""The optimizer over the parameters of an MLP."""

from dataclasses import replace

import torch

from dlrm import optim
from dlrm.bench.cost import operator_work
from dlrm.bench.cost.work import Work
from dlrm.bench.local_step import LEARNING_RATE
from dlrm.bench.ops import rotation
from dlrm.bench.ops.operator import Case, Need, Operator, Stock
from dlrm.bench.ops.setting import Setting
from dlrm.nn.mlp import MLP

MOST = 256
"""MLPs that take turns; of small ones so many fit into the cache."""

CALLS = 29
"""What a run on a single sample takes, in smallest operations of torch; measured."""


def work(setting: Setting) -> Work:
    """Return what a step of the optimizer has to do, see `operator_work.dense_update`."""
    return replace(operator_work.dense_update(setting.parameters, setting.optim), calls=CALLS)


def need(setting: Setting) -> Need:
    """Return the memory of the MLPs that take turns."""
    one = _turn_bytes(setting)
    return Need(inputs_bytes=rotation.count(one, MOST) * one)


def build(setting: Setting, stock: Stock) -> Case:
    """Return steps of an optimizer; whole MLPs take turns."""

    def fresh() -> torch.optim.Optimizer:
        parameters = list(MLP(setting.widths, relu_last=True).parameters())
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter) / setting.parameters
        groups = [{"params": parameters, "sparse": False}]
        return optim.build(setting.optim, groups, LEARNING_RATE)

    inputs = [fresh() for _ in range(rotation.count(_turn_bytes(setting), MOST))]
    return Case(lambda optimizer: optimizer.step(), inputs)


def _turn_bytes(setting: Setting) -> int:
    declared = optim.find(setting.optim).declaration
    return 8 * setting.parameters + declared.dense_state_bytes(setting.parameters)


DENSE_UPDATE = Operator(
    "dense_update",
    "the optimizer over the parameters of an MLP",
    ("optim", "widths", "threads"),
    work,
    need,
    build,
)
