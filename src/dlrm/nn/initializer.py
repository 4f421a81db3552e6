"""What fresh rows of tables are: numbers that are drawn, piece by piece, or all alike."""

from collections.abc import Callable, Iterator
from math import sqrt

from torch import Tensor, nn

from dlrm.nn.layout import Layout

Initializer = Callable[[Tensor, int, int], object]
"""Puts values into some rows of a table: a float32 tensor (rows, D), the number of the table, and
the first of the rows. Called for all tables in order, and for the rows of a table in order."""

PIECE_NUMBERS = 1 << 22
"""Numbers of a piece of a table."""


def fresh_rows(layout: Layout, std: float | None = None, *, share: float = 1.0) -> Initializer:
    """Return what draws fresh rows of tables, all numbers `share` times as large.

    They are of N(0, std^2); without `std` uniform within sqrt(1/n) in a table of n rows, as the
    original DLRM draws them.
    """
    if std is not None:
        return normal(share * std)
    bounds = [share * sqrt(1 / n) for n in layout.sizes]
    return lambda values, t, first: nn.init.uniform_(values, -bounds[t], bounds[t])


def normal(std: float) -> Initializer:
    """Return what draws rows from N(0, std^2)."""
    return lambda values, t, first: nn.init.normal_(values, std=std)


def constant(value: float) -> Initializer:
    """Return what sets every number to the value."""
    return lambda values, t, first: values.fill_(value)


def pieces(rows: int, dim: int) -> Iterator[tuple[int, int]]:
    """Yield the first row of each piece of a table, and the one after its last.

    Random numbers drawn piece by piece are those that are drawn at once: torch makes normal ones of
    blocks of sixteen, and the last sixteen anew where a piece does not end with a block.
    """
    step = max(16, PIECE_NUMBERS // dim // 16 * 16)
    first = 0
    while (rows - first - step) * dim >= 16:
        yield first, first + step
        first += step
    yield first, rows
