"""The way back through the tables: gradients of vectors become updates of rows."""

import torch
from torch import Tensor

from dlrm.bench.cost.work import Random, Work
from dlrm.bench.ops import rotation
from dlrm.bench.ops.operator import Case, Need, Operator, Stock
from dlrm.bench.ops.setting import Setting

STATE_NUMBERS = {"sgd": 0, "adagrad": 1, "rowwise_adagrad": 0, "adam": 2}
"""Optimizer -> numbers that it keeps of each number of a row."""
ROW_NUMBERS = {"rowwise_adagrad": 1}
"""Optimizer -> numbers that it keeps of each row."""
FLOPS = {"sgd": 2, "adagrad": 7, "rowwise_adagrad": 5, "adam": 11}
"""Optimizer -> operations on each number: a root or a quotient counts as one."""

CALLS = 90
"""What a run on a single sample takes, in smallest operations of torch; measured."""


def work(setting: Setting) -> Work:
    """Return what the backward pass and the update have to do.

    FLOP: a number of operations, `FLOPS`, on each of D numbers of each of B T P looked-up rows.
    In order: the gradient of the vectors, 4 B T D bytes; numbers of rows, 8 B T P (and offsets).
    At random: B T P rows are read and written, and so are their lower halves where they are split,
    and what the optimizer keeps of them: 4 D bytes for Adagrad, 8 D for Adam, 4 for row-wise
    Adagrad. A row that is looked up several times counts as often.
    """
    lookups, dim = setting.lookups, setting.dim
    row_bytes = [setting.row_bytes]
    if setting.storage == "split":
        row_bytes.append(2 * dim)
    if setting.optim in ROW_NUMBERS:
        row_bytes.append(4 * ROW_NUMBERS[setting.optim])
    if state := STATE_NUMBERS[setting.optim]:
        row_bytes.append(4 * state * dim)
    offsets = 8 * (setting.vectors + 1) if setting.pooling > 1 else 0
    return Work(
        calls=CALLS,
        scalar_flops=FLOPS[setting.optim] * lookups * dim,
        stream_bytes=4 * setting.vectors * dim + 8 * lookups + offsets,
        random=tuple(
            Random(lookups, each, setting.all_rows, setting.ids, written=True) for each in row_bytes
        ),
    )


def need(setting: Setting) -> Need:
    """Return the memory of the tables with their state, of gradients, and of ids."""
    row_bytes = setting.row_bytes + 4 * STATE_NUMBERS[setting.optim] * setting.dim
    row_bytes += 4 * ROW_NUMBERS.get(setting.optim, 0)
    if setting.storage == "split":
        row_bytes += 2 * setting.dim
    # Vectors that the graph belongs to lie beside their gradients.
    one = 8 * setting.vectors * setting.dim + 8 * setting.lookups + rotation.ids_bytes(setting)
    batch_bytes = 4 * setting.lookups * setting.dim
    return Need(
        tables_bytes=sum(setting.all_rows) * row_bytes,
        inputs_bytes=rotation.count(_turn_bytes(setting)) * one + batch_bytes,
    )


def build(setting: Setting, stock: Stock) -> Case:
    """Return backward passes and updates, of lookups that were done before."""
    tables, optimizer = stock.tables(setting), stock.optimizer(setting)
    inputs = rotation.count(_turn_bytes(setting))
    # As large as a mean over the batch makes them.
    grads = rotation.normal(
        inputs, setting.batch, setting.tables, setting.dim,
        scale=1 / setting.batch, dtype=torch.float32,
    )  # fmt: skip
    looked_up = [tables(*ids) for ids in rotation.draw(setting, inputs)]

    def run(given: tuple[Tensor, Tensor]) -> None:
        vectors, grad = given
        # The graph is kept: this batch comes round again.
        vectors.backward(grad, retain_graph=True)
        optimizer.step()
        optimizer.zero_grad()

    return Case(run, list(zip(looked_up, grads, strict=True)))


def _turn_bytes(setting: Setting) -> int:
    """Return the bytes that a batch reads in order."""
    return 4 * setting.vectors * setting.dim + 8 * setting.lookups


UPDATE = Operator(
    "update",
    "gradients of rows, and the optimizer that applies them",
    ("batch", "tables", "rows", "dim", "pooling", "ids", "storage", "optim", "threads"),
    work,
    need,
    build,
)
