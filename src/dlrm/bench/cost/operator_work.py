"""What single operators have to do for a batch, from their shapes.

    lookup       ids and rows read at random, vectors written
    update       gradients read, rows that were looked up read and written: where numbers are exact
                 once a gradient, else gradients of equal rows are brought together first. Rows are
                 near, as far as the caches hold what a step touches; optimizer state is not
    MLP          a product a layer forwards, two backwards, of which the first layer of a bottom MLP
                 needs one; inputs, outputs and weights in order
    interaction  2 D operations a pair forwards, twice as many backwards

These are the kernels of `dlrm.ops`: another implementation has other work.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np

from dlrm.bench.batches import Ids
from dlrm.bench.cost.caches import popularity
from dlrm.bench.cost.work import Product, Random, Work
from dlrm.nn.precision import Precision
from dlrm.parallel.tables import STATE

ID_BYTES, ROW_BYTES = 4, 8
"""Of an id as it is given, and of the row of the stacked tables that it becomes."""
PASSES, ITEM_BYTES = 3, 16
"""Over row numbers and places, to bring those of equal rows together."""
UPDATE_FLOPS = {"sgd": 4, "adagrad": 12, "rowwise_adagrad": 8, "adam": 24}
"""Optimizer -> operations of a number, of which roots and divisions count several."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a batch is like."""

    batch_size: int
    pooling: float = 1.0
    """Ids of a bag, on average."""
    ids: Ids = "uniform"


def mlp(
    sizes: list[int], batch_size: int, dtype: Precision, *, needs_input_gradient: bool
) -> tuple[Work, Work]:
    """Return the work of an MLP, forwards and backwards.

    Args:
        sizes: Inputs of the first layer, then outputs of each.
        batch_size: B.
        dtype: Of the products.
        needs_input_gradient: Whether its inputs get a gradient.

    """
    number_bytes = 2 if dtype == "bf16" else 4
    forward: list[Product] = []
    backward: list[Product] = []
    there = back = 0.0
    for position, (n, k) in enumerate(pairwise(sizes)):
        forward.append(Product(batch_size, n, k))
        backward.append(Product(n, batch_size, k))
        there += number_bytes * batch_size * (n + k) + 4 * n * k
        back += number_bytes * batch_size * (n + k) + 4 * n * k
        if position or needs_input_gradient:
            backward.append(Product(batch_size, k, n))
            back += number_bytes * batch_size * (n + k) + 4 * n * k
    return (
        Work(len(sizes) - 1, tuple(forward), dtype, stream_bytes=there),
        Work(len(backward), tuple(backward), dtype, stream_bytes=back),
    )


def dot(batch_size: int, vectors: int, dim: int, pairs: int) -> tuple[Work, Work]:
    """Return the work of the dot products of all pairs of F vectors, forwards and backwards."""
    read, written = 4.0 * batch_size * vectors * dim, 4.0 * batch_size * (dim + pairs)
    flops = 2.0 * batch_size * dim * pairs
    return (
        Work(scalar_flops=flops, stream_bytes=read + written),
        Work(scalar_flops=2 * flops, stream_bytes=2 * read + written),
    )


def lookup(rows: tuple[int, ...], dim: int, number_bytes: float, shape: Shape) -> tuple[Work, Work]:
    """Return the work of looking up T tables, and of handing their gradients back.

    Args:
        rows: Of each table.
        dim: D.
        number_bytes: Of a number in the tables.
        shape: Of the batches.

    """
    bags = shape.batch_size * len(rows)
    looked_up = bags * shape.pooling
    forward = Work(
        calls=2,
        scalar_flops=dim * (looked_up - bags),
        stream_bytes=looked_up * (ID_BYTES + 2 * ROW_BYTES) + 4.0 * bags * dim,
        random=(Random(looked_up, ceil(dim * number_bytes), rows, shape.ids),),
    )
    # One gradient an id: those of a bag are copies of one.
    spread = 4.0 * dim * (bags + looked_up) if shape.pooling > 1 else 0.0
    return forward, Work(calls=2, stream_bytes=spread)


def update(
    rows: tuple[int, ...],
    dim: int,
    number_bytes: float,
    shape: Shape,
    optimizer: str,
    *,
    split: bool = False,
) -> Work:
    """Return the work of updating the rows that a batch looked up.

    Args:
        rows: Of each table.
        dim: D.
        number_bytes: Of a number in the tables.
        shape: Of the batches.
        optimizer: One of `dlrm.optim.OPTIMIZERS`.
        split: Whether the lower halves of the numbers lie elsewhere.

    """
    looked_up = shape.batch_size * len(rows) * shape.pooling
    touched = distinct(rows, shape)
    # The lookup has just been there.
    near = (max(1, round(touched)),)
    row_bytes = ceil(dim * number_bytes)
    random = []
    if split:
        random.append(Random(touched, 2 * dim, rows, shape.ids, written=True))
    if not by_rows(optimizer, exact=split or number_bytes == 4):
        return Work(
            scalar_flops=2 * dim * looked_up,
            stream_bytes=looked_up * (4.0 * dim + 2 * ROW_BYTES),
            random=(Random(looked_up, row_bytes, near, written=True), *random),
        )
    number_state, row_state = STATE[optimizer]
    if state := number_state * dim + row_state:
        random.append(Random(touched, state, rows, shape.ids, written=True))
    return Work(
        scalar_flops=dim * (looked_up + UPDATE_FLOPS[optimizer] * touched),
        stream_bytes=looked_up * 2.0 * PASSES * ITEM_BYTES,
        random=(
            Random(touched, row_bytes, near, written=True),
            # In the order of the rows, which is not that of the batch.
            Random(looked_up, 4 * dim, (max(1, round(looked_up)),)),
            *random,
        ),
    )


def by_rows(optimizer: str, *, exact: bool) -> bool:
    """Return whether an update brings gradients of equal rows together first.

    It need not where numbers lose nothing by being written once a gradient.
    """
    return optimizer != "sgd" or not exact


def distinct(rows: tuple[int, ...], shape: Shape) -> float:
    """Return how many different rows a batch looks up, as a mean."""
    count, chance = popularity(rows, shape.ids)
    drawn = shape.batch_size * len(rows) * shape.pooling
    return float((count * -np.expm1(-chance * drawn)).sum())
