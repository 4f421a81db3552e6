"""Embeddings, the seam of the project, and the plain collection of tables behind it.

Sharding, compression, quantisation and serving replace the one object that maps ids to vectors;
models, losses and metrics do not know. The plain collection stacks all tables of one dimension and
looks them up together. Its backward pass leaves `(ids, grad)` as a sparse `weight.grad`, which the
optimizers of `dlrm.optim` apply to the rows that were looked up, so that no gradient of table size
ever exists while clipping and accumulation work as usual.
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

    sizes: Tensor
    """(T,) int64, ids of each feature"""

    def __init__(self, rows: Sequence[int], dim: int, names: Sequence[str] | None = None):
        super().__init__()
        self.rows = tuple(rows)
        self.dim = dim
        self.names = tuple(names) if names else tuple(f"table {t}" for t in range(len(rows)))
        self.register_buffer("sizes", torch.tensor(self.rows, dtype=torch.int64), persistent=False)

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

    @torch.no_grad()
    def start_at_zero(self) -> None:
        """Make every vector 0, in such a way that training can move it from there."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    @property
    def size_bytes(self) -> int:
        """Bytes of the tables and of all that belongs to them, as a checkpoint holds them."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    def rows_of(self, ids: Tensor, offsets: Tensor | None, starts: Tensor | None = None) -> Tensor:
        """Check ids and turn them into rows of stacked tables.

        Args:
            ids: As for `forward`.
            offsets: As for `forward`.
            starts: (T,) int64, the first row of each table; None leaves the ids as they are.

        Returns:
            int64, in the shape of ids.

        Raises:
            IdError: As for `forward`; also where the offsets do not rise from 0 to L.

        """
        if offsets is None and ids.shape[1] != len(self.rows):
            raise IdError(f"ids for {ids.shape[1]} tables, expected {len(self.rows)}")
        if starts is None:
            starts = torch.zeros_like(self.sizes)
        # Which kernels run depends on where the ids are, not on how tables are stored.
        kernels = backend(torch.empty(0, device=ids.device))
        rows, wrong = kernels.rows_of(ids, starts, self.sizes, offsets)
        if wrong == -2:
            raise IdError(f"offsets must rise from 0 to the number of ids, {ids.shape[0]}")
        if wrong >= 0:
            raise self._out_of_range(int(ids.flatten()[wrong]), wrong, offsets)
        return rows

    def _out_of_range(self, wrong: int, place: int, offsets: Tensor | None) -> IdError:
        # Such an id would silently read a neighbouring table: all are one weight.
        bag = place if offsets is None else _bag(offsets, place)
        t = bag % len(self.rows)
        return IdError(
            f"{self.names[t]}: id {wrong} is out of range, "
            f"its table has {self.rows[t]} rows (0 to {self.rows[t] - 1})"
        )


def _bag(offsets: Tensor, place: int) -> int:
    return int(torch.searchsorted(offsets, place, right=True)) - 1


def bags_of(offsets: Tensor, count: int) -> Tensor:
    """Return the bag that each of `count` ids lies in, (L,) int64, from offsets (G + 1,)."""
    bags = torch.arange(offsets.shape[0] - 1, device=offsets.device)
    return bags.repeat_interleave(offsets.diff(), output_size=count)


class EmbeddingCollection(Embeddings):
    """T tables of dimension D, stacked into one weight.

    Args:
        rows: Rows of each of the T tables.
        dim: D.
        names: Name of the feature behind each table, for errors.
        storage: How the weight is stored; what comes out is float32, and so is the gradient.
        init_std: Rows are drawn from N(0, init_std^2); None draws those of table t from
            uniform(-bounds[t], bounds[t]).
        bounds: None draws rows of a table with n of them within sqrt(1/n), as the original DLRM
            does.
        weight: (R, D), taken instead of drawing, without a copy if it is stored alike.

    """

    starts: Tensor
    """(T,) int64, the first row of each table in `weight`"""

    def __init__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
        init_std: float | None = None,
        bounds: Sequence[float] | None = None,
        weight: Tensor | None = None,
    ):
        super().__init__(rows, dim, names)
        self.storage: Storage = storage
        self.register_buffer("starts", self.sizes.cumsum(0) - self.sizes, persistent=False)
        dtype = torch.float32 if storage == "fp32" else torch.bfloat16
        if weight is not None:
            self.weight = nn.Parameter(weight.detach().to(dtype))
            return
        self.weight = nn.Parameter(in_huge_pages(torch.empty(sum(self.rows), dim, dtype=dtype)))
        for t, n in enumerate(self.rows):
            # Drawn as float32 whatever the storage: the same numbers, rounded.
            values = self.table(t) if storage == "fp32" else torch.empty(n, dim)
            if init_std is None:
                bound = sqrt(1 / n) if bounds is None else bounds[t]
                nn.init.uniform_(values, -bound, bound)
            else:
                nn.init.normal_(values, std=init_std)
            if storage != "fp32":
                self.table(t).copy_(values)

    def table(self, t: int) -> Tensor:
        """Return the (rows, D) weight of table t, a view without gradient."""
        start = sum(self.rows[:t])
        return self.weight.detach()[start : start + self.rows[t]]

    def forward(
        self, ids: Tensor, offsets: Tensor | None = None, factors: Tensor | None = None
    ) -> Tensor:
        """Look up the rows of each bag; see `Embeddings.forward`.

        Args:
            ids: As there.
            offsets: As there.
            factors: (L,) of the rows in a bag's sum, or None; they also get a gradient.

        """
        if offsets is None:
            return self.each(ids)
        rows = self.rows_of(ids, offsets, self.starts)
        pooled = self._kernels().pooled_lookup(
            self.weight, rows, offsets, per_sample_weights=factors
        )
        return pooled.view(-1, len(self.rows), self.dim)

    def each(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up the row of each id and add nothing up: (B, T, D) when one-hot, else (L, D)."""
        return self._kernels().lookup(self.weight, self.rows_of(ids, offsets, self.starts))

    def _kernels(self):
        if self.storage != "fp32":
            mark(self.weight, split=self.storage == "split")
        return backend(self.weight)


def embeddings_of(module: nn.Module) -> list[Embeddings]:
    """Return the embeddings in a model, without those that others are made of."""
    if isinstance(module, Embeddings):
        return [module]
    return [found for child in module.children() for found in embeddings_of(child)]
