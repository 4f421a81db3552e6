"""Gradients of parameters as optimizers apply them."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class TableGradient(NamedTuple):
    """The gradient of an embedding weight (R, D): of the rows that were looked up."""

    rows: Tensor
    """(L,) int64, with duplicates."""
    grad: Tensor
    """(L, D) of those rows, or (G, D) of bags of them."""
    bags: Tensor | None = None
    """(L,), the bag of each row."""
    scale: Tensor | None = None
    """(L,), the factor of each row in its bag; None is 1."""


Gradients = Mapping[Tensor, Tensor | TableGradient]
"""Parameters that have a gradient -> that: of its shape where it is dense."""
