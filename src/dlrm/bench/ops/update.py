"""The way back through the tables: gradients of vectors become updates of rows."""

from dataclasses import replace

import torch
from torch import Tensor

from dlrm.bench.cost import operator_work
from dlrm.bench.cost.work import Work
from dlrm.bench.ops import rotation
from dlrm.bench.ops.operator import Case, Need, Operator, Stock
from dlrm.bench.ops.setting import Setting
from dlrm.optim import find

CALLS = 90
"""What a run on a single sample takes, in smallest operations of torch; measured."""


def work(setting: Setting) -> Work:
    """Return what the backward pass and the update have to do, see `operator_work.update`."""
    found = operator_work.update(
        setting.all_rows,
        setting.dim,
        setting.number_bytes,
        setting.shape,
        setting.optim,
        split=setting.storage == "split",
    )
    return replace(found, calls=CALLS)


def need(setting: Setting) -> Need:
    """Return the memory of the tables with their state, of gradients, and of ids."""
    declared = find(setting.optim).declaration
    row_bytes = setting.row_bytes + declared.row_state_bytes(setting.dim, setting.storage)
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
    looked_up = [tables.pooled(block) for block in rotation.draw(setting, inputs)]

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
