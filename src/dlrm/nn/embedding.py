"""The embedding collection: all tables of one dimension, looked up together.

This is the seam of the project. Sharding, compression, quantisation and serving replace this one
object; models, losses and metrics do not know. The backward pass leaves `(ids, grad)` as a sparse
`weight.grad`, which the optimizers of `dlrm.optim` apply to the rows that were looked up, so that
no gradient of table size ever exists while clipping and accumulation work as usual.
"""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn

from dlrm.errors import IdError
from dlrm.ops import reference


class EmbeddingCollection(nn.Module):
    """T tables of dimension D, stacked into one weight.

    Rows of a table with n rows are drawn from uniform(-sqrt(1/n), sqrt(1/n)), as the original DLRM
    does.

    Args:
        rows: Rows of each of the T tables.
        dim: D.
        names: Name of the feature behind each table, for errors.

    """

    starts: Tensor
    """(T,) int64, the first row of each table in `weight`"""
    sizes: Tensor
    """(T,) int64, rows of each table"""

    def __init__(self, rows: Sequence[int], dim: int, names: Sequence[str] | None = None):
        super().__init__()
        self.rows = tuple(rows)
        self.dim = dim
        self.names = tuple(names) if names else tuple(f"table {t}" for t in range(len(rows)))
        sizes = torch.tensor(self.rows, dtype=torch.int64)
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("starts", sizes.cumsum(0) - sizes, persistent=False)
        self.weight = nn.Parameter(torch.empty(sum(self.rows), dim))
        for t, n in enumerate(self.rows):
            nn.init.uniform_(self.table(t), -sqrt(1 / n), sqrt(1 / n))

    def table(self, t: int) -> Tensor:
        """Return the (rows, D) weight of table t, a view without gradient."""
        start = sum(self.rows[:t])
        return self.weight.detach()[start : start + self.rows[t]]

    def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up one row, or the sum of a bag of rows, per sample and table.

        Args:
            ids: (B, T) when one-hot, else (L,); see `Batch`.
            offsets: None when one-hot, else (B*T + 1,).

        Returns:
            (B, T, D).

        Raises:
            IdError: An id is negative or not below the rows of its table; names the feature.

        """
        if offsets is None:
            if ids.shape[1] != len(self.rows):
                raise IdError(f"ids for {ids.shape[1]} tables, expected {len(self.rows)}")
            self._check(ids, self.sizes, None)
            return reference.lookup(self.weight, ids + self.starts)
        bags = offsets.shape[0] - 1
        table_of_bag = torch.arange(len(self.rows), device=ids.device).repeat(
            bags // len(self.rows)
        )
        table_of_id = table_of_bag.repeat_interleave(offsets.diff(), output_size=ids.shape[0])
        self._check(ids, self.sizes[table_of_id], table_of_id)
        pooled = reference.pooled_lookup(self.weight, ids + self.starts[table_of_id], offsets)
        return pooled.view(-1, len(self.rows), self.dim)

    def _check(self, ids: Tensor, sizes: Tensor, tables: Tensor | None) -> None:
        # A wrong id would silently read a neighbouring table: all are one weight.
        wrong = (ids < 0) | (ids >= sizes)
        if not wrong.any():
            return
        where = wrong.nonzero()[0]
        t = int(where[-1]) if tables is None else int(tables[where[0]])
        raise IdError(
            f"{self.names[t]}: id {int(ids[tuple(where)])} is out of range, "
            f"its table has {self.rows[t]} rows (0 to {self.rows[t] - 1})"
        )
