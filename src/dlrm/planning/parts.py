"""The parts of a step: what is watched while it runs, each with its work and its kind.

Embeddings, MLPs, dot products and updates by the formulas of operators.py; whatever else a model
has is counted by torch while it passes through its `meta` device.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from dlrm.nn import precision as precisions
from dlrm.nn.embedding import Collection, Embeddings, collections_of, parameter_groups
from dlrm.nn.interaction import Dot
from dlrm.nn.mlp import MLP
from dlrm.nn.precision import ComputeDtype
from dlrm.planning import operators
from dlrm.planning.arithmetic import counted
from dlrm.planning.costs import OTHER
from dlrm.planning.fit import Measured
from dlrm.planning.stages import BACKWARD, DENSE_UPDATE, FORWARD, LOSS, TABLE_UPDATE, stages
from dlrm.planning.work import NOTHING, NUMBER_BYTES, Shape, Work
from dlrm.schema import Schema

if TYPE_CHECKING:
    from dlrm.training.config import TrainConfig

LOOKUP, UPDATE = "lookup", "update"
BOTTOM = "bottom MLP"


@dataclass(frozen=True, slots=True)
class Part:
    """One direction of an operator."""

    operator: str
    """What people call it: lookup, update, bottom MLP."""
    phase: str
    """forward or backward; updates and losses belong to the backward pass."""
    kind: str
    """Kind of the cost model."""
    stages: tuple[tuple[str, str], ...]
    """Stages and phases of the step that it is made of."""
    work: Work


def parts(
    config: "TrainConfig",
    schema: Schema,
    shape: Shape,
    *,
    train: bool = True,
    precision: ComputeDtype | None = None,
    number_bytes: float | None = None,
) -> list[Part]:
    """Return the parts of a step: the model's in its order, forwards, then backwards, then updates.

    `precision` is of the MLPs' products, and `number_bytes` of a number in the tables, scales and
    all, instead of what they are.
    """
    with torch.device("meta"):
        model = config.model.build(schema, precision or precisions.resolve(config.precision))
    modules = stages(model)
    embeddings = [name for name, module in modules.items() if isinstance(module, Embeddings)]
    works: dict[tuple[str, str], Work] = {}
    if not all(isinstance(module, Embeddings | MLP | Dot) for module in modules.values()):
        with torch.device("meta"):
            works = counted(config.model.build(schema), schema, shape.batch_size)
    handed = _handed(modules.values())
    forward: list[Part] = []
    backward: list[Part] = []
    for name, module in modules.items():
        if isinstance(module, Embeddings):
            called = LOOKUP
            if len(embeddings) > 1:
                called += f" {name.removesuffix('.embeddings')}"
            works_of = (
                operators.lookup(*_tables(table, number_bytes), shape)
                for table in collections_of(module)
            )
            work = sum(works_of, NOTHING)
            forward.append(Part(called, FORWARD, LOOKUP, ((name, FORWARD),), work))
            continue
        called = f"{name} MLP" if isinstance(module, MLP) else name
        if isinstance(module, MLP | Dot):
            works[name, FORWARD], works[name, BACKWARD] = _known(module, name, shape, handed)
        for phase, directed in ((FORWARD, forward), (BACKWARD, backward)):
            work = works.get((name, phase), NOTHING)
            directed.append(Part(called, phase, _kind(module, phase), ((name, phase),), work))
    if not train:
        return forward
    there, back = operators.loss(shape.batch_size)
    optimizer = config.optim.name
    groups = [group for group in parameter_groups(model) if not group["sparse"]]
    numbers = sum(parameter.numel() for group in groups for parameter in group["params"])
    tables = collections_of(model)
    updates = (
        operators.update(
            *_tables(t, number_bytes), shape, optimizer, split=t.storage == "split", near=True
        )
        for t in tables
    )
    kind = update_kind(optimizer, {t.storage for t in tables}, number_bytes)
    # What the way back through the tables takes is part of their update.
    update_stages = (*((name, BACKWARD) for name in embeddings), (TABLE_UPDATE, FORWARD))
    return [
        *forward,
        Part(LOSS, FORWARD, f"{LOSS} forward", ((LOSS, FORWARD),), there),
        Part(LOSS, BACKWARD, f"{LOSS} backward", ((LOSS, BACKWARD),), back),
        *reversed(backward),
        Part(
            DENSE_UPDATE,
            BACKWARD,
            DENSE_UPDATE,
            ((DENSE_UPDATE, FORWARD),),
            operators.dense_update(numbers, optimizer),
        ),
        Part(UPDATE, BACKWARD, kind, update_stages, sum(updates, NOTHING)),
    ]


def measured(
    step_parts: Iterable[Part], seconds: dict[tuple[str, str], float], step_s: float
) -> list[Measured]:
    """Return what each part took, by the seconds of stages, and what the step took beside them."""
    timed = [
        Measured(part.kind, part.work, sum(seconds.get(stage, 0.0) for stage in part.stages))
        for part in step_parts
    ]
    rest = max(0.0, step_s - sum(part.seconds for part in timed))
    return [*timed, Measured(OTHER, Work(calls=1), rest)]


def update_kind(optimizer: str, storages: Iterable[str], number_bytes: float | None = None) -> str:
    """Return the kind of an update of tables that are stored in these ways."""
    # Split tables hold half of each number, and lose nothing.
    exact = set(storages) <= {"fp32", "split"} and number_bytes in (None, 4)
    return f"{UPDATE} by rows" if operators.by_rows(optimizer, exact=exact) else UPDATE


def _known(module: MLP | Dot, name: str, shape: Shape, handed: ComputeDtype) -> tuple[Work, Work]:
    if isinstance(module, Dot):
        dim = module.width - module.pairs
        return operators.dot(shape.batch_size, module.vectors, dim, module.pairs, handed)
    linears = module.linears()
    return operators.mlp(
        [linears[0].in_features, *(linear.out_features for linear in linears)],
        shape.batch_size,
        _dtype(module),
        # What has gradients before it is not the first part of a model.
        needs_input_gradient=name != "bottom",
    )


def _dtype(module: MLP) -> ComputeDtype:
    return "bf16" if module.dtype == "bf16" else "fp32"


def _handed(modules: Iterable[nn.Module]) -> ComputeDtype:
    """Return the type of what MLPs hand on to what is between them."""
    for module in modules:
        if isinstance(module, MLP):
            return _dtype(module)
    return "fp32"


def _kind(module: nn.Module, phase: str) -> str:
    if isinstance(module, MLP):
        return f"mlp {phase} {module.dtype}"
    return f"dot {phase}" if isinstance(module, Dot) else "layers"


def _tables(table: Collection, number_bytes: float | None) -> tuple[list[int], int, float]:
    """Return the rows of the table of each feature, the dimension and the bytes of a number."""
    rows = [table.layout.sizes[t] for t in table.layout.table_of]
    return rows, table.dim, number_bytes or NUMBER_BYTES[table.storage]
