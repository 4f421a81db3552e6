"""The operators of a step: the stages that are watched, each with its work and its kind."""

from dataclasses import dataclass

from torch import nn

from dlrm.bench.cost.fit import OTHER, Measured
from dlrm.bench.cost.operator_work import by_rows
from dlrm.bench.cost.step_work import Assumed, Works
from dlrm.bench.cost.work import Work
from dlrm.bench.stages import BACKWARD, DENSE_UPDATE, FORWARD, LOSS, TABLE_UPDATE, stages
from dlrm.nn.embedding import Embeddings, collections_of
from dlrm.nn.interaction import Dot
from dlrm.nn.mlp import MLP

LOOKUP, UPDATE = "lookup", "update"


@dataclass(frozen=True, slots=True)
class Part:
    """One direction of an operator."""

    operator: str
    """What people call it: lookup, update, bottom MLP."""
    phase: str
    """forward or backward; updates and losses belong to the backward pass."""
    kind: str
    """Of the cost model."""
    stages: tuple[tuple[str, str], ...]
    """Of the step that it is made of."""
    work: Work


def parts(
    model: nn.Module,
    works: Works,
    optimizer: str | None,
    assumed: Assumed = Assumed(),  # noqa: B008
) -> list[Part]:
    """Return the parts of a step: the model's in its order, forwards, then backwards, then updates.

    Args:
        model: As it is measured.
        works: Of its stages, see `step_work.works`.
        optimizer: As for `dlrm.optim.find`; None to score only.
        assumed: What is to be other than it is.

    """
    modules = stages(model)
    embeddings = [name for name, module in modules.items() if isinstance(module, Embeddings)]
    forward, backward = [], []
    for name, module in modules.items():
        if name in embeddings:
            called = LOOKUP
            if len(embeddings) > 1:
                called += f" {name.removesuffix('.embeddings')}"
            forward.append(Part(called, FORWARD, LOOKUP, ((name, FORWARD),), works[name, FORWARD]))
            continue
        called = f"{name} MLP" if isinstance(module, MLP) else name
        for phase, found in ((FORWARD, forward), (BACKWARD, backward)):
            key = (name, phase)
            if key in works:
                kind = _kind(module, phase, assumed)
                found.append(Part(called, phase, kind, (key,), works[key]))
    if optimizer is None:
        return forward
    # Split tables hold half of each number, and lose nothing.
    exact = all(table.storage in ("fp32", "split") for table in collections_of(model))
    exact &= assumed.number_bytes is None or assumed.number_bytes == 4
    kind = f"{UPDATE} by rows" if by_rows(optimizer, exact=exact) else UPDATE
    backward.reverse()
    updates = tuple((name, BACKWARD) for name in embeddings)
    work = works[TABLE_UPDATE, FORWARD]
    for key in updates:
        work = work + works[key]
    dense = ((DENSE_UPDATE, FORWARD),)
    return [
        *forward,
        Part(LOSS, FORWARD, f"{LOSS} forward", ((LOSS, FORWARD),), works[LOSS, FORWARD]),
        Part(LOSS, BACKWARD, f"{LOSS} backward", ((LOSS, BACKWARD),), works[LOSS, BACKWARD]),
        *backward,
        Part(DENSE_UPDATE, BACKWARD, DENSE_UPDATE, dense, works[DENSE_UPDATE, FORWARD]),
        Part(UPDATE, BACKWARD, kind, (*updates, (TABLE_UPDATE, FORWARD)), work),
    ]


def measured(
    of: list[Part], seconds: dict[tuple[str, str], float], step_s: float
) -> list[Measured]:
    """Return what each part took, and what the step took beside them.

    Args:
        of: The parts of the step.
        seconds: Of each stage.
        step_s: Of the whole step.

    """
    found = [
        Measured(part.kind, part.work, sum(seconds.get(stage, 0.0) for stage in part.stages))
        for part in of
    ]
    rest = max(0.0, step_s - sum(each.seconds for each in found))
    return [*found, Measured(OTHER, Work(calls=1), rest)]


def _kind(module: nn.Module, phase: str, assumed: Assumed) -> str:
    if isinstance(module, MLP):
        return f"mlp {phase} {assumed.precision or module.dtype}"
    return f"dot {phase}" if isinstance(module, Dot) else "layers"
