"""The exchange of vectors and their gradients between two processes of this machine."""

import torch
from torch import Tensor

from dlrm.bench.cost.work import Work
from dlrm.bench.ops import rotation
from dlrm.bench.ops.operator import Case, Need, Operator, Stock
from dlrm.bench.ops.setting import Setting
from dlrm.errors import ConfigError
from dlrm.parallel.exchange import AllToAll, Exchange

PROCESSES = 2
CALLS = 1000
"""What the smallest trip takes, messages and all, in smallest operations of torch; measured."""


def work(setting: Setting) -> Work:
    """Return what both processes have to do for a batch, whose tables and samples they share.

    In order: each has the vectors of half of the tables, and needs those of half of the samples,
    so half of them travel, and half of the gradients travel back: 4 B T D bytes. Read here, written
    there: twice as many.
    """
    return Work(calls=CALLS, stream_bytes=2 * 4 * setting.vectors * setting.dim)


def need(setting: Setting) -> Need:
    """Return the memory of vectors and gradients in both processes, given and kept."""
    one = _turn_bytes(setting)
    return Need(inputs_bytes=PROCESSES * (rotation.count(one) + 1) * one)


def build(setting: Setting, stock: Stock) -> Case:
    """Return trips of vectors there and of gradients back, in one of two processes.

    Raises:
        ConfigError: There is only one process.

    """
    world = stock.world
    if world.size != PROCESSES:
        raise ConfigError(f"an exchange takes {PROCESSES} processes, found {world.size}")
    exchange = Exchange(world.rank, PROCESSES, world.exchange, samples=(1, 1))
    sent = [_for_other(setting)] * PROCESSES
    inputs = rotation.count(_turn_bytes(setting))
    vectors = rotation.normal(inputs, sum(sent), dtype=torch.float32)
    grads = rotation.normal(inputs, sum(sent), dtype=torch.float32)
    for values in vectors:
        values.requires_grad_()

    def run(given: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        vectors, grad = given
        both = AllToAll(exchange, sent, sent)
        arrived = both.end(both.begin(vectors))
        return arrived.detach(), *torch.autograd.grad(arrived, vectors, grad)

    return Case(run, list(zip(vectors, grads, strict=True)), inputs)


def _for_other(setting: Setting) -> int:
    """Return the numbers that a process has for the other: of half the tables and samples."""
    return -(-setting.vectors * setting.dim // PROCESSES**2)


def _turn_bytes(setting: Setting) -> int:
    """Return the bytes of a trip in one process: vectors and gradients, given and taken."""
    return 4 * 4 * PROCESSES * _for_other(setting)


EXCHANGE = Operator(
    "exchange",
    "vectors to another process, gradients back",
    ("batch", "tables", "dim", "threads"),
    work,
    need,
    build,
    PROCESSES,
)
