"""The two kinds of gradients: dense ones, and those of the looked-up rows of a table."""

from typing import Any, Literal

import torch
from torch import Tensor

from dlrm.errors import ConfigError

RowScope = Literal["touched", "all"]
"""Rows of an embedding weight that take part in a step: those that were looked up, or every one, as
with a dense gradient, whose cost then grows with the table instead of the batch."""


TableGradient = tuple[Tensor, Tensor, Tensor]
"""An embedding weight (R, D), the rows (L,) that were looked up, and their gradients (L, D)."""


def by_kind(group: dict[str, Any]) -> tuple[list[Tensor], list[Tensor], list[TableGradient]]:
    """Tell the parameters of a group that have a gradient apart by its kind.

    Args:
        group: With `params` and `sparse`: whether they are tables, or None to ask their gradients.

    Returns:
        The dense parameters, their gradients, and the tables. Nothing is copied; a row comes as
        often as it was looked up, and from a dense gradient of a table every row comes once.

    Raises:
        ConfigError: A parameter of a dense group has a sparse gradient.

    """
    weights: list[Tensor] = []
    grads: list[Tensor] = []
    tables: list[TableGradient] = []
    for p in group["params"]:
        grad = p.grad
        if grad is None:
            continue
        if grad.is_sparse:
            if group["sparse"] is False:
                raise ConfigError(
                    f"a dense parameter {tuple(p.shape)} has a sparse gradient: put it into a "
                    'parameter group with "sparse": True, see dlrm.nn.embedding.parameter_groups'
                )
            tables.append((p, grad._indices()[0], grad._values()))
        elif group["sparse"]:
            tables.append((p, torch.arange(p.shape[0], device=p.device), grad))
        else:
            weights.append(p)
            grads.append(grad)
    return weights, grads, tables


def l2_rows(group: dict[str, Any]) -> bool:
    """Return whether L2 takes every row: without L2 a row without gradient stays as it is anyway.

    Not so in Adam, whose moments move rows long after their last gradient.
    """
    return group["embedding_rows"] == "all" and group["embedding_l2"] != 0
