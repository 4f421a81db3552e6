"""The optimizer over the parameters of an MLP."""

import torch

from dlrm import optim
from dlrm.bench.cost.work import Work
from dlrm.bench.ops import rotation
from dlrm.bench.ops.operator import Case, Need, Operator, Stock
from dlrm.bench.ops.setting import Setting
from dlrm.bench.ours import learning_rate
from dlrm.nn.mlp import MLP

STATE_NUMBERS = {"sgd": 0, "adagrad": 1, "rowwise_adagrad": 1, "adam": 2}
"""Optimizer -> numbers that it keeps of each parameter; row-wise Adagrad is Adagrad here."""
FLOPS = {"sgd": 2, "adagrad": 7, "rowwise_adagrad": 7, "adam": 11}
"""Optimizer -> operations a parameter: a root or a quotient counts as one."""
MOST = 256
"""MLPs that take turns; of small ones so many fit into the cache."""

CALLS = 29
"""What a run on a single sample takes, in smallest operations of torch; measured."""


def work(setting: Setting) -> Work:
    """Return what a step of the optimizer has to do, for P parameters.

    FLOP: a number of operations, `FLOPS`, on each parameter.
    In order: parameters and what is kept of them are read and written, gradients are read: 12 P
    bytes for SGD, 20 P for Adagrad, 28 P for Adam.
    """
    state = STATE_NUMBERS[setting.optim]
    return Work(
        calls=CALLS,
        scalar_flops=FLOPS[setting.optim] * setting.parameters,
        stream_bytes=4 * (3 + 2 * state) * setting.parameters,
    )


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
        return optim.build(setting.optim, parameters, learning_rate(setting.optim))

    inputs = [fresh() for _ in range(rotation.count(_turn_bytes(setting), MOST))]
    return Case(lambda optimizer: optimizer.step(), inputs)


def _turn_bytes(setting: Setting) -> int:
    return 4 * (2 + STATE_NUMBERS[setting.optim]) * setting.parameters


DENSE_UPDATE = Operator(
    "dense_update",
    "the optimizer over the parameters of an MLP",
    ("optim", "widths", "threads"),
    work,
    need,
    build,
)
