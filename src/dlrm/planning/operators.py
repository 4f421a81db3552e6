"""What single operators have to do for a batch, from their shapes: the least that is to be done.

Every pass reads its inputs once and writes its outputs once; what the way back needs of the way
there is an output of the one and an input of the other. What our kernels do beyond it is kept apart
as passes, of which another implementation has others. FLOP are additions and multiplications, and
a root, a quotient, an exp and a log count as one.

    lookup        ids read, vectors and numbers of rows written; rows read at random
    update        gradients of vectors and numbers of rows read; each row that was looked up read
                  and written once, at random, and so is what the optimizer keeps of it
    MLP           a product a layer forwards, two backwards, of which the first layer of a bottom
                  MLP needs one; inputs, the output of each layer, parameters
    interaction   2 D operations a pair forwards, twice as many backwards
    loss          logits and labels read both ways, a gradient written
    dense update  parameters and what is kept of them read and written, gradients read
    routing       vectors and gradients put in the order of their owners, and back
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil

from dlrm.nn.precision import ComputeDtype
from dlrm.optim import find
from dlrm.planning.caches import distinct
from dlrm.planning.work import NUMBER_BYTES, Product, Random, Shape, Work

ID_BYTES, ROW_BYTES, OFFSET_BYTES = 4, 8, 8
"""Bytes of an id as it is given, of its row in the stacked tables, and of the end of a bag."""
PASSES, ITEM_BYTES = 3, 16
"""Passes of our updates, over numbers of rows and places, to bring those of equal rows together."""
ROUTED_BYTES, ROUTING_CALLS = 16, 200
"""Bytes of a number that is put in order, there and back; calls that the smallest batch takes."""


def mlp(
    sizes: Sequence[int], batch_size: float, dtype: ComputeDtype, *, needs_input_gradient: bool
) -> tuple[Work, Work]:
    """Return the work of an MLP with a ReLU behind every layer, forwards and backwards.

    FLOP of a layer n -> k: 2 B n k for its outputs, as many for the gradients of its weights and of
    its inputs; 2 B k of bias and ReLU, B k of the gradient of the bias.
    In order: parameters are read in both directions, and their gradients written. Of activations,
    the input is read twice and its gradient written, the gradient of the output is read, and the
    output of each layer is written forwards and read backwards.

    `sizes` are inputs of the first layer, then outputs of each; `dtype` is of products and of what
    layers hand on.
    """
    layers = list(pairwise(sizes))
    outputs = sum(k for _, k in layers)
    forward = tuple(Product(batch_size, n, k) for n, k in layers)
    backward = (
        *(Product(n, batch_size, k) for n, k in layers),
        *(Product(batch_size, k, n) for n, k in (layers if needs_input_gradient else layers[1:])),
    )
    parameters = 4.0 * sum(n * k + k for n, k in layers)
    moved = NUMBER_BYTES[dtype] * batch_size
    gradients = sizes[-1] + (sizes[0] if needs_input_gradient else 0)
    there = moved * (sizes[0] + outputs) + parameters
    back = moved * (sizes[0] + outputs + gradients) + 2 * parameters
    return (
        _multiplied(forward, dtype, 2.0 * batch_size * outputs, there),
        _multiplied(backward, dtype, 1.0 * batch_size * outputs, back),
    )


def dot(
    batch_size: float, vectors: int, dim: int, pairs: int, dtype: ComputeDtype
) -> tuple[Work, Work]:
    """Return the work of the dot products of all pairs of F vectors, forwards and backwards.

    FLOP: 2 B D a pair forwards: a dot product; twice as many backwards: two scaled additions.
    In order: x (B, D) and e (B, F - 1, D) are read in both directions, the output (B, D + pairs) is
    written and its gradient read, the gradients of x and e are written. x and the output are of
    `dtype`, e is float32.
    """
    narrow = NUMBER_BYTES[dtype]
    given = batch_size * dim * (narrow + 4.0 * (vectors - 1))
    out = narrow * batch_size * (dim + pairs)
    flops = 2.0 * batch_size * dim * pairs
    return (
        Work(scalar_flops=flops, stream_bytes=given + out),
        Work(scalar_flops=2 * flops, stream_bytes=2 * given + out),
    )


def lookup(tables: Sequence[int], dim: float, number_bytes: float, shape: Shape) -> Work:
    """Return the work of looking up the table of each of T features: a vector for each sample.

    FLOP: (P - 1) B T D additions, P ids in a bag.
    In order: ids and numbers of rows, (4 + 8) B T P bytes (and offsets, 8 (B T + 1)); vectors, 4 B
    T D bytes.
    At random: B T P rows are read.
    """
    bags = shape.batch_size * len(tables)
    looked_up = bags * shape.pooling
    return Work(
        calls=2,
        scalar_flops=dim * (looked_up - bags),
        stream_bytes=looked_up * (ID_BYTES + ROW_BYTES) + _offsets(bags, shape) + 4.0 * bags * dim,
        random=(Random(looked_up, ceil(dim * number_bytes), tuple(tables), shape.ids),),
        passes_bytes=looked_up * ROW_BYTES,
    )


def update(
    tables: Sequence[int],
    dim: float,
    number_bytes: float,
    shape: Shape,
    optimizer: str,
    *,
    split: bool = False,
    near: bool = False,
) -> Work:
    """Return the work of handing gradients back to the rows, and of updating those.

    FLOP: an addition for each number of each of B T P gradients, and as many operations as the
    optimizer declares on each number of each of N different rows.
    In order: the gradient of the vectors, 4 B T D bytes; numbers of rows, 8 B T P (and offsets).
    At random: N rows are read and written, and so are their lower halves where they are split, and
    what the optimizer keeps of them: 4 D bytes for Adagrad, 8 D for Adam, 4 for row-wise Adagrad.
    Where the lookup has just been there (`near`), as in a step, caches hold what they can of its
    rows.
    """
    declared = find(optimizer).declaration
    tables = tuple(tables)
    bags = shape.batch_size * len(tables)
    looked_up = bags * shape.pooling
    touched = distinct(tables, shape)
    row_bytes = ceil(dim * number_bytes)
    at = (max(1, round(touched)),) if near else tables
    values = Random(touched, row_bytes, at, "uniform" if near else shape.ids, written=True)
    state_bytes = (2 * ceil(dim) if split else 0, declared.row_state_bytes(ceil(dim)))
    # Numbers of rows and of their gradients are dealt to owners.
    passes_bytes = 2.0 * ITEM_BYTES * looked_up
    gradients = looked_up
    if shape.pooling > 1:
        # The bag of each id, or a gradient for each id, written and read.
        passes_bytes += 8.0 * looked_up * (1 if declared.takes_bags else dim)
        gradients = bags if declared.takes_bags else looked_up
    if by_rows(optimizer, exact=split or number_bytes == 4):
        passes_bytes += 2.0 * PASSES * ITEM_BYTES * looked_up
        # In the order of the rows, which is not that of the batch.
        again = Random(looked_up, 4 * ceil(dim), (max(1, round(gradients)),))
    else:
        again = replace(values, accesses=looked_up - touched)
    return Work(
        calls=3,
        scalar_flops=dim * (looked_up + declared.table_flops * touched),
        stream_bytes=4.0 * bags * dim + ROW_BYTES * looked_up + _offsets(bags, shape),
        random=(
            values,
            *(
                Random(touched, size, tables, shape.ids, written=True)
                for size in state_bytes
                if size
            ),
        ),
        passes_bytes=passes_bytes,
        passes=(again,),
    )


def loss(batch_size: float) -> tuple[Work, Work]:
    """Return the work of binary cross-entropy, forwards and backwards.

    FLOP: 7 B for max(z, 0) - y z + log(1 + e^-|z|) and its sum, 5 B for (sigmoid(z) - y) / B.
    In order: logits and labels are read in both directions, the gradient is written: 20 B bytes.
    """
    return (
        Work(2, scalar_flops=7.0 * batch_size, stream_bytes=8.0 * batch_size),
        Work(1, scalar_flops=5.0 * batch_size, stream_bytes=12.0 * batch_size),
    )


def dense_update(parameters: int, optimizer: str) -> Work:
    """Return the work of the optimizer on P parameters that are no tables.

    FLOP: as many operations as the optimizer declares on each.
    In order: parameters and what is kept of them are read and written, gradients are read: 12 P
    bytes for SGD, 20 P for Adagrad, 28 P for Adam.
    """
    declared = find(optimizer).declaration
    return Work(
        scalar_flops=1.0 * declared.dense_flops * parameters,
        stream_bytes=4.0 * (declared.dense_reads + declared.dense_writes) * parameters,
    )


def routing(numbers: float) -> Work:
    """Return the work of putting the vectors of own samples in order: so many numbers of them."""
    return Work(calls=ROUTING_CALLS, stream_bytes=ROUTED_BYTES * numbers)


def by_rows(optimizer: str, *, exact: bool) -> bool:
    """Return whether our update brings gradients of equal rows together first.

    It need not where numbers lose nothing by being written once a gradient.
    """
    return find(optimizer).declaration.adds_up_rows or not exact


def _multiplied(
    products: tuple[Product, ...], dtype: ComputeDtype, scalar_flops: float, stream_bytes: float
) -> Work:
    """Return the work of products; each by itself reads its operands and writes its result."""
    operands = NUMBER_BYTES[dtype] * sum(p.m * p.k + p.k * p.n + p.m * p.n for p in products)
    return Work(
        len(products),
        products,
        dtype,
        scalar_flops=scalar_flops,
        stream_bytes=stream_bytes,
        passes_bytes=max(0.0, operands - stream_bytes),
    )


def _offsets(bags: float, shape: Shape) -> float:
    return OFFSET_BYTES * (bags + 1) if shape.pooling > 1 else 0
