"""The inputs that one feature makes: numbers, ids, and bags of ids."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Bags = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Ids of all bags one after another, and the length of each bag (n,)."""


@dataclass(frozen=True, slots=True)
class Input:
    """One column of the model's input."""

    name: str
    rows: int | None = None
    """Rows of the table of a category; None for a number."""
    transform: str = "none"
    """Of a number."""
    bags: bool = False
    """Whether a sample has a bag of ids."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The inputs of n rows, in the order of the feature's `inputs()`."""

    dense: list[NDArray[np.float32]] = field(default_factory=list)
    """Each (n,)."""
    ids: list[NDArray[np.int32] | Bags] = field(default_factory=list)
    """Each (n,), or bags."""
