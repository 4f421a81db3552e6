"""Embeddings, the seam of the project, and the plain collection of tables behind it.

Sharding, compression, quantisation and serving replace the one object that maps ids to vectors;
models, losses and metrics do not know. The plain collection stacks all tables of one dimension and
looks them up together. Its backward pass leaves `(ids, grad)` as a sparse
`weight.grad`, which the optimizers of `dlrm.optim` apply to the rows that were looked up, so that
no gradient of table size ever exists while clipping and accumulation work as usual.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from dlrm.errors import IdError
from dlrm.ops import backend
from dlrm.ops.memory import in_huge_pages
from dlrm.ops.storage import mark

Storage = Literal["fp32", "bf16", "split"]
"""How tables are stored: float32; bfloat16 with stochastic rounding; bfloat16 whose lost halves the
optimizer keeps, so that nothing is lost. See `dlrm.ops.storage`."""


class Embeddings(nn.Module):
    """What a model sees: T categorical features, each with its rows, become vectors of D numbers.

    A subclass defines `forward`.

    Args:
        rows: Ids that each of the T features may take: 0 <= id < rows.
        dim: D.
        names: Name of each feature, for errors.

    """

    def __init__(self, rows: Sequence[int], dim: int, names: Sequence[str] | None = None):
        super().__init__()
        self.rows = tuple(rows)
        self.dim = dim
        self.names = tuple(names) if names else tuple(f"table {t}" for t in range(len(rows)))

    def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up one row, or the sum of a bag of rows, per sample and feature.

        Args:
            ids: (B, T) when one-hot, else (L,); see `Batch`.
            offsets: None when one-hot, else (B*T + 1,).

        Returns:
            (B, T, D).

        Raises:
            IdError: An id is negative or not below the rows of its table; names the feature.

        """
        raise NotImplementedError


class EmbeddingCollection(Embeddings):
    """T tables of dimension D, stacked into one weight.

    Args:
        rows: Rows of each of the T tables.
        dim: D.
        names: Name of the feature behind each table, for errors.
        storage: How the weight is stored; what comes out is float32, and so is the gradient.
        init_std: Rows are drawn from N(0, init_std^2); None draws those of a table with n rows from
            uniform(-sqrt(1/n), sqrt(1/n)), as the original DLRM does.

    """

    starts: Tensor
    """(T,) int64, the first row of each table in `weight`"""
    sizes: Tensor
    """(T,) int64, rows of each table"""

    def __init__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
        init_std: float | None = None,
    ):
        super().__init__(rows, dim, names)
        self.storage: Storage = storage
        sizes = torch.tensor(self.rows, dtype=torch.int64)
        self.register_buffer("sizes", sizes, persistent=False)
        self.register_buffer("starts", sizes.cumsum(0) - sizes, persistent=False)
        dtype = torch.float32 if storage == "fp32" else torch.bfloat16
        self.weight = nn.Parameter(in_huge_pages(torch.empty(sum(self.rows), dim, dtype=dtype)))
        for t, n in enumerate(self.rows):
            # Drawn as float32 whatever the storage: the same numbers, rounded.
            values = self.table(t) if storage == "fp32" else torch.empty(n, dim)
            if init_std is None:
                nn.init.uniform_(values, -sqrt(1 / n), sqrt(1 / n))
            else:
                nn.init.normal_(values, std=init_std)
            if storage != "fp32":
                self.table(t).copy_(values)

    def table(self, t: int) -> Tensor:
        """Return the (rows, D) weight of table t, a view without gradient."""
        start = sum(self.rows[:t])
        return self.weight.detach()[start : start + self.rows[t]]

    def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up the rows of each bag; see `Embeddings.forward`."""
        if self.storage != "fp32":
            mark(self.weight, split=self.storage == "split")
        kernels = backend(self.weight)
        if offsets is None:
            if ids.shape[1] != len(self.rows):
                raise IdError(f"ids for {ids.shape[1]} tables, expected {len(self.rows)}")
            rows, wrong = kernels.rows_of(ids, self.starts, self.sizes)
            if wrong >= 0:
                raise self._out_of_range(int(ids.flatten()[wrong]), wrong)
            return kernels.lookup(self.weight, rows)
        rows, wrong = kernels.rows_of(ids, self.starts, self.sizes, offsets)
        if wrong == -2:
            raise IdError(f"offsets must rise from 0 to the number of ids, {ids.shape[0]}")
        if wrong >= 0:
            bag = int(torch.searchsorted(offsets, wrong, right=True)) - 1
            raise self._out_of_range(int(ids[wrong]), bag)
        return kernels.pooled_lookup(self.weight, rows, offsets).view(-1, len(self.rows), self.dim)

    def _out_of_range(self, wrong: int, bag: int) -> IdError:
        # Such an id would silently read a neighbouring table: all are one weight.
        t = bag % len(self.rows)
        return IdError(
            f"{self.names[t]}: id {wrong} is out of range, "
            f"its table has {self.rows[t]} rows (0 to {self.rows[t] - 1})"
        )
