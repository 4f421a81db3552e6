"""The two kinds of gradients: dense ones, and those of the looked-up rows of a table."""

from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor

Rows = Literal["touched", "all"]
"""Rows of an embedding weight that take part in a step: those that were looked up, or every one, as
with a dense gradient, whose cost then grows with the table instead of the batch."""


Table = tuple[Tensor, Tensor, Tensor]
"""An embedding weight (R, D), the rows (L,) that were looked up, and their gradients (L, D)."""


def by_kind(parameters: Iterable[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Table]]:
    """Tell the parameters that have a gradient apart by its kind.

    Returns:
        Those with a dense one, their gradients, and the embedding weights. Nothing is copied; a
        row comes as often as it was looked up.

    """
    weights: list[Tensor] = []
    grads: list[Tensor] = []
    tables: list[Table] = []
    for p in parameters:
        grad = p.grad
        if grad is None:
            continue
        if grad.is_sparse:
            tables.append((p, grad._indices()[0], grad._values()))
        else:
            weights.append(p)
            grads.append(grad)
    return weights, grads, tables


def l2_rows(group: dict[str, Any]) -> bool:
    """Return whether L2 takes every row: without L2 a row without gradient stays as it is anyway.

    Not so in Adam, whose moments move rows long after their last gradient.
    """
    return group["embedding_rows"] == "all" and group["embedding_l2"] != 0
