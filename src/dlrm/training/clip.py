"""Gradients of a step that are too large together, made smaller."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from dlrm.parallel.world import ALONE, World


@torch.no_grad()
def clip_gradients(groups: Iterable[Mapping[str, Any]], most: float, world: World = ALONE) -> None:
    """Scale all gradients by one factor, so that their norm together is at most `most`.

    The norm is that of the whole model on any number of processes: parameters that every process
    has count once, and of tables that are sharded each counts what it keeps. Rows of a table count
    once each, with the sum of what they were looked up for. Nothing waits for a device.

    Args:
        groups: Parameter groups of an optimizer, as `dlrm.nn.embedding.parameter_groups` returns
            them. A `sparse` one is of tables that only this process keeps, unless it is `copied`.
        most: Positive.
        world: The processes that train, all of which call this.

    Source: Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013.

    """
    shared: list[Tensor] = []
    local: list[Tensor] = []
    grads: list[Tensor] = []
    for group in groups:
        here = local if group.get("sparse") and not group.get("copied") else shared
        for parameter in group["params"]:
            grad = parameter.grad
            if grad is None:
                continue
            rows = grad.coalesce()._values() if grad.is_sparse else grad
            here.append(torch.linalg.vector_norm(rows, dtype=torch.float32).square())
            grads.append(grad._values() if grad.is_sparse else grad)
    device = grads[0].device if grads else world.device
    squares = _sum(local, device)
    if world.size > 1:
        squares = world.sum(squares)
    norm = (squares + _sum(shared, device)).sqrt()
    factor = (most / (norm + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(factor)


def _sum(squares: list[Tensor], device: torch.device) -> Tensor:
    return torch.stack(squares).sum() if squares else torch.zeros((), device=device)
