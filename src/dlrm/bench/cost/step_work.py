"""What each operator of a model has to do for a batch.

Embeddings, MLPs, dot products and updates by the formulas of operator_work.py; whatever else a
model has is counted by torch while it passes through its `meta` device.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dlrm.bench.cost.operator_work import (
    READ_BYTES,
    Shape,
    dense_update,
    dot,
    lookup,
    loss,
    mlp,
    update,
)
from dlrm.bench.cost.work import Work
from dlrm.bench.stages import (
    BACKWARD,
    DENSE_UPDATE,
    FORWARD,
    LOSS,
    TABLE_UPDATE,
    Watched,
    stages,
)
from dlrm.nn.embedding import Collection, Embeddings, collections_of, parameter_groups
from dlrm.nn.interaction import Dot
from dlrm.nn.mlp import MLP
from dlrm.nn.precision import ComputeDtype
from dlrm.planning.arithmetic import empty_batch, simplify
from dlrm.schema import Schema

COUNTED = 64
"""Samples that are counted with."""

Works = dict[tuple[str, str], Work]
"""(stage, phase) -> what it has to do."""


@dataclass(frozen=True, slots=True)
class Assumed:
    """What is taken to be other than it is."""

    number_bytes: float | None = None
    """Of a number in the tables, scales and all."""
    precision: ComputeDtype | None = None
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
        optimizer: As for `dlrm.optim.find`; None to score only.
        assumed: What is to be other than it is.

    """
    parts = stages(model)
    known = all(isinstance(module, Embeddings | MLP | Dot) for module in parts.values())
    counted = {} if known else _counted(ghost, schema, shape.batch_size)
    handed = _handed(parts.values(), assumed)
    found: Works = {}
    for name, module in parts.items():
        forward, backward = _module(module, name, shape, counted, assumed, handed)
        found[name, FORWARD] = forward
        if optimizer is not None:
            found[name, BACKWARD] = backward
    if optimizer is None:
        return found
    found[LOSS, FORWARD], found[LOSS, BACKWARD] = loss(shape.batch_size)
    groups = [group for group in parameter_groups(model) if not group["sparse"]]
    numbers = sum(parameter.numel() for group in groups for parameter in group["params"])
    found[DENSE_UPDATE, FORWARD] = dense_update(numbers, optimizer)
    updates = (_update(table, shape, optimizer, assumed) for table in collections_of(model))
    found[TABLE_UPDATE, FORWARD] = sum(updates, Work(calls=0))
    return found


def _module(
    module: nn.Module,
    name: str,
    shape: Shape,
    counted: Mapping[tuple[str, str], Work],
    assumed: Assumed,
    handed: ComputeDtype,
) -> tuple[Work, Work]:
    size = shape.batch_size
    if isinstance(module, Embeddings):
        looked_up = (_lookup(table, shape, assumed) for table in collections_of(module))
        # What the way back takes is part of the update.
        return sum(looked_up, Work(calls=0)), Work(calls=0)
    if isinstance(module, MLP):
        return mlp(
            [module.linears()[0].in_features, *(each.out_features for each in module.linears())],
            size,
            _dtype(module, assumed),
            # What has gradients before it is not the first part of a model.
            needs_input_gradient=name != "bottom",
        )
    if isinstance(module, Dot):
        dim = module.width - module.pairs
        return dot(size, module.vectors, dim, module.pairs, handed)
    nothing = Work(calls=0)
    return counted.get((name, FORWARD), nothing), counted.get((name, BACKWARD), nothing)


def _number_bytes(table: Collection, assumed: Assumed) -> float:
    if assumed.number_bytes is not None:
        return assumed.number_bytes
    return READ_BYTES[table.storage]


def _dtype(module: MLP, assumed: Assumed) -> ComputeDtype:
    return assumed.precision or ("bf16" if module.dtype == "bf16" else "fp32")


def _handed(parts: Iterable[nn.Module], assumed: Assumed) -> ComputeDtype:
    """Return the type of what MLPs hand on to what is between them."""
    for module in parts:
        if isinstance(module, MLP):
            return _dtype(module, assumed)
    return "fp32"


def _lookup(table: Collection, shape: Shape, assumed: Assumed) -> Work:
    return lookup(_num_embeddings(table), table.dim, _number_bytes(table, assumed), shape)


def _update(table: Collection, shape: Shape, optimizer: str, assumed: Assumed) -> Work:
    return update(
        _num_embeddings(table),
        table.dim,
        _number_bytes(table, assumed),
        shape,
        optimizer,
        split=table.storage == "split",
        near=True,
    )


def _num_embeddings(table: Collection) -> list[int]:
    """Return the rows of the table of each feature."""
    return [table.layout.sizes[t] for t in table.layout.table_of]


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
        watched = Watched(ghost)
        with torch.device("meta"), counter.flops, counter, watched.watching(counter):
            ghost(empty_batch(schema, size)).sum().backward()
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
