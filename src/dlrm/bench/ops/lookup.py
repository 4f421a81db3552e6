"""Rows of the tables: a vector for each sample and table, or the sum of a bag of rows."""

from dataclasses import replace

from dlrm.bench.cost import operator_work
from dlrm.bench.cost.work import Work
from dlrm.bench.ops import rotation
from dlrm.bench.ops.operator import Case, Need, Operator, Stock
from dlrm.bench.ops.setting import Setting

CALLS = 27
"""What a run on a single sample takes, in smallest operations of torch; measured."""


def work(setting: Setting) -> Work:
    """Return what a forward pass of the tables has to do, see `operator_work.lookup`."""
    found = operator_work.lookup(setting.all_rows, setting.dim, setting.number_bytes, setting.shape)
    return replace(found, calls=CALLS)


def need(setting: Setting) -> Need:
    """Return the memory of the tables, of ids, and of vectors that are kept."""
    # The graph of a result keeps the rows that were looked up.
    one = _turn_bytes(setting) + 8 * setting.lookups
    return Need(
        tables_bytes=sum(setting.all_rows) * setting.row_bytes,
        inputs_bytes=(_count(setting) + 1) * one,
    )


def build(setting: Setting, stock: Stock) -> Case:
    """Return lookups as a model does them, in training: each leaves its node in the graph."""
    tables = stock.tables(setting)
    inputs = stock.once(
        ("ids", setting.batch, setting.all_rows, setting.pooling, setting.ids, _count(setting)),
        lambda: rotation.draw(setting, _count(setting)),
    )
    return Case(tables.pooled, inputs, len(inputs))


def _count(setting: Setting) -> int:
    return rotation.count(_turn_bytes(setting))


def _turn_bytes(setting: Setting) -> int:
    return rotation.ids_bytes(setting) + _vectors_bytes(setting)


def _vectors_bytes(setting: Setting) -> int:
    return 4 * setting.vectors * setting.dim


LOOKUP = Operator(
    "lookup",
    "rows of the tables, forwards",
    ("batch", "tables", "rows", "dim", "pooling", "ids", "storage", "threads"),
    work,
    need,
    build,
)
