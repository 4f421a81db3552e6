"""The inputs that one feature makes: numbers, ids, and lists of ids."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dlrm.schema import Kind

IdLists = tuple[NDArray[np.int32], NDArray[np.int64]]
"""Ids of the lists of n rows one after another, and the length of each list (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One input of the model: a dense feature, or a categorical one."""

    name: str
    num_embeddings: int | None = None
    """Rows of the table of a category; None for a number."""
    transform: str = "none"
    """How a number became this one."""
    bins: int = 0
    """Components that a model makes of a piecewise number; 0 for others."""
    kind: Kind = "one_hot"
    """How many ids a sample has of a category."""
    max_length: int = 0
    """Ids that are kept of a longer sequence; 0 for all."""
    table: str = ""
    """Name of the table that a category shares; empty for a table of its own."""
    value_names: tuple[str, ...] = ()
    """What each id of a category that is made of a number is called, the last one missing."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The inputs of n rows, in the order of the feature's `inputs()`."""

    dense: list[NDArray[np.float32]] = field(default_factory=list)
    """(n,) of each number."""
    ids: list[NDArray[np.int32] | IdLists] = field(default_factory=list)
    """(n,) of each category with one id a row, or lists."""
