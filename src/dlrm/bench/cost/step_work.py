"""What each operator of a model has to do for a batch.

lookup       ids and rows read at random, vectors written
update       gradients read; rows that were looked up read and written, each once; those are
             near, as far as the caches hold what a step touches; optimizer state is not
MLP          a product a layer forwards, two backwards, of which the first layer of a bottom MLP
             needs one; inputs, outputs and weights in order
interaction  2 D operations a pair forwards, twice as many backwards
the rest     counted by torch while the model passes through its `meta` device
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dlrm.batch import Batch
from dlrm.bench.batches import Ids
from dlrm.bench.cost.caches import popularity
from dlrm.bench.cost.work import Product, Random, Work
from dlrm.bench.stages import (
    BACKWARD,
    DENSE_UPDATE,
    FORWARD,
    LOSS,
    TABLE_UPDATE,
    Watched,
    stages,
)
from dlrm.nn.embedding import Collection, EmbeddingCollection, Embeddings
from dlrm.nn.interaction import Dot
from dlrm.nn.mlp import MLP
from dlrm.nn.precision import Precision
from dlrm.parallel.arithmetic import simplify
from dlrm.parallel.tables import DENSE_STATE, STATE
from dlrm.schema import Schema

COUNTED = 64
"""Samples that are counted with."""
ID_BYTES, ROW_BYTES = 4, 8
"""Of an id as it is given, and of the row of the stacked tables that it becomes."""
LOSS_FLOPS = 40.0
"""Of a sample: an exponential and a logarithm."""
PASSES, ITEM_BYTES = 3, 16
"""Over row numbers and places, to bring those of equal rows together."""
UPDATE_FLOPS = {"sgd": 4, "adagrad": 12, "rowwise_adagrad": 8, "adam": 24}
"""Optimizer -> operations of a number, of which roots and divisions count several."""

Works = dict[tuple[str, str], Work]
"""(stage, phase) -> what it has to do."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a batch is like."""

    batch_size: int
    pooling: float = 1.0
    """Ids of a bag, on average."""
    ids: Ids = "uniform"


@dataclass(frozen=True, slots=True)
class Assumed:
    """What is taken to be other than it is."""

    number_bytes: float | None = None
    """Of a number in the tables, scales and all."""
    precision: Precision | None = None
    """Of the MLPs' products."""


def works(
    model: nn.Module,
    ghost: nn.Module,
    schema: Schema,
    shape: Shape,
    optimizer: str | None,
    assumed: Assumed = Assumed(),
) -> Works:
    """Return the work of every stage.

    Args:
        model: As it is measured.
        ghost: The same on the `meta` device, of no other use afterwards.
        schema: That both were built for.
        shape: Of the batches.
        optimizer: One of `dlrm.optim.OPTIMIZERS`; None to score only.
        assumed: What is to be other than it is.

    """
    counted = _counted(ghost, schema, shape.batch_size)
    parts = stages(model)
    found: Works = {}
    for name, module in parts.items():
        forward, backward = _module(module, name, shape, counted, assumed)
        found[name, FORWARD] = forward
        if optimizer is not None:
            found[name, BACKWARD] = backward
    if optimizer is None:
        return found
    size = shape.batch_size
    found[LOSS, FORWARD] = Work(2, scalar_flops=LOSS_FLOPS * size, stream_bytes=12.0 * size)
    found[LOSS, BACKWARD] = Work(1, scalar_flops=LOSS_FLOPS * size, stream_bytes=12.0 * size)
    tables = [module for module in parts.values() if isinstance(module, Embeddings)]
    numbers = sum(p.numel() for p in model.parameters())
    numbers -= sum(p.numel() for module in tables for p in module.parameters())
    # Weights and gradients read, weights written; state read and written.
    moved = 12 + 2 * DENSE_STATE[optimizer]
    found[DENSE_UPDATE, FORWARD] = Work(stream_bytes=float(moved * numbers))
    update = Work(calls=0)
    for module in tables:
        for table in _collections(module):
            update = update + _update(table, shape, optimizer, assumed)
    found[TABLE_UPDATE, FORWARD] = update
    return found


def _module(
    module: nn.Module,
    name: str,
    shape: Shape,
    counted: Mapping[tuple[str, str], Work],
    assumed: Assumed,
) -> tuple[Work, Work]:
    size = shape.batch_size
    if isinstance(module, Embeddings):
        forward = backward = Work(calls=0)
        for table in _collections(module):
            first, second = _lookup(table, shape, assumed)
            forward, backward = forward + first, backward + second
        return forward, backward
    if isinstance(module, MLP):
        return mlp(
            [module.linears()[0].in_features, *(each.out_features for each in module.linears())],
            size,
            assumed.precision or ("bf16" if module.precision == "bf16" else "fp32"),
            # What has gradients before it is not the first part of a model.
            needs_input_gradient=name != "bottom",
        )
    if isinstance(module, Dot):
        return dot(size, module.vectors, module.width - module.pairs, module.pairs)
    nothing = Work(calls=0)
    return counted.get((name, FORWARD), nothing), counted.get((name, BACKWARD), nothing)


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


def _collections(module: Embeddings) -> Iterator[Collection]:
    for each in module.modules():
        if isinstance(each, Collection):
            yield each


def _number_bytes(table: Collection, assumed: Assumed) -> float:
    if assumed.number_bytes is not None:
        return assumed.number_bytes
    return table.weight.element_size() if isinstance(table, EmbeddingCollection) else 4


def _lookup(table: Collection, shape: Shape, assumed: Assumed) -> tuple[Work, Work]:
    return lookup(table.rows, table.dim, _number_bytes(table, assumed), shape)


def _update(table: Collection, shape: Shape, optimizer: str, assumed: Assumed) -> Work:
    split = isinstance(table, EmbeddingCollection) and table.storage == "split"
    number_bytes = _number_bytes(table, assumed)
    return update(table.rows, table.dim, number_bytes, shape, optimizer, split=split)


class _Counter(TorchDispatchMode):
    """Adds up calls and bytes of the operators that run in a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stage: tuple[str, str] | None = None
        self.found: dict[tuple[str, str], list[float]] = {}
        self.flops = FlopCounterMode(display=False)
        self._before = 0

    def enter(self, stage: str, phase: str) -> None:
        self.stage = (stage, phase)
        self._before = self.flops.get_total_flops()

    def leave(self, stage: str, phase: str) -> None:
        kept = self.found.setdefault((stage, phase), [0.0, 0.0, 0.0])
        kept[2] += self.flops.get_total_flops() - self._before
        self.stage = None

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        # Views move nothing.
        if self.stage is not None and not func.is_view:
            kept = self.found.setdefault(self.stage, [0.0, 0.0, 0.0])
            kept[0] += 1
            kept[1] += sum(
                each.numel() * each.element_size()
                for each in tree_leaves((args, kwargs, out))
                if isinstance(each, Tensor)
            )
        return out


def _counted(ghost: nn.Module, schema: Schema, batch_size: int) -> Works:
    """Return the work of the stages of a model on the `meta` device, by counting."""
    simplify(ghost)
    parts = stages(ghost)
    counts = []
    for size in (COUNTED, 2 * COUNTED):
        counter = _Counter()
        watched = Watched(ghost, None)
        with torch.device("meta"), counter.flops, counter, watched.watching(counter):
            batch = Batch(
                dense=torch.empty(size, len(schema.dense)),
                ids=torch.empty(size, len(schema.categorical), dtype=torch.int32),
                labels=torch.empty(size),
            )
            ghost(batch).sum().backward()
        watched.forget()
        counts.append(counter.found)
    once, twice = counts
    found: Works = {}
    for key in once:
        if isinstance(parts.get(key[0]), Embeddings):
            continue
        calls, bytes_, flops = (
            a + (b - a) * (batch_size / COUNTED - 1)
            for a, b in zip(once[key], twice[key], strict=True)
        )
        found[key] = Work(calls=calls, scalar_flops=flops, stream_bytes=max(0.0, bytes_))
    return found
