"""Embeddings, the seam of the project, and the plain collection of tables behind it.

Sharding, compression, quantisation and serving replace the one object that maps ids to vectors;
models, losses and metrics do not know. The plain collection stacks all tables of one dimension and
looks them up together. Its backward pass leaves `(ids, grad)` as a sparse `weight.grad`, which the
optimizers of `dlrm.optim` apply to the rows that were looked up, so that no gradient of table size
ever exists while clipping and accumulation work as usual.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from math import sqrt
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from dlrm.errors import IdError
from dlrm.ops import backend
from dlrm.ops.memory import in_huge_pages
from dlrm.ops.storage import mark

Storage = Literal["fp32", "bf16", "bf16_nearest", "split"]
"""How tables are stored: float32; bfloat16 with stochastic rounding; bfloat16 with rounding to the
nearest, which loses small updates; bfloat16 whose lost halves the optimizer keeps, so that nothing
is lost. See `dlrm.ops.storage`."""


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


Initializer = Callable[[Tensor, int, int], object]
"""Puts values into some rows of a table: a float32 tensor (rows, D), the number of the table, and
the first of the rows. Called for all tables in order, and for the rows of a table in order."""


class Collection(Embeddings):
    """Tables that stand behind one object, whoever keeps their rows.

    All other embeddings are made of such ones, see `collection`.
    """

    def forward(
        self, ids: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Look up the rows of each bag; see `Embeddings.forward`.

        Args:
            ids: As there.
            offsets: As there.
            per_sample_weights: (L,) of the rows in a bag's sum, or None; they also get a gradient.

        """
        raise NotImplementedError

    def each(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up the row of each id and add nothing up: (B, T, D) when one-hot, else (L, D)."""
        raise NotImplementedError

    def fill(self, draw: Initializer) -> None:
        """Overwrite all tables."""
        raise NotImplementedError

    def table(self, t: int) -> Tensor:
        """Return the (rows, D) numbers of table t, without gradient; a view where they lie here."""
        raise NotImplementedError


class EmbeddingCollection(Collection):
    """T tables of dimension D, stacked into one weight.

    Args:
        rows: Rows of each of the T tables.
        dim: D.
        names: Name of the feature behind each table, for errors.
        storage: How the weight is stored; what comes out is float32, and so is the gradient.
        draw: What fresh rows are; None for `uniform` with bounds of sqrt(1/n) in a table of n rows,
            as the original DLRM draws them.
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
        draw: Initializer | None = None,
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
        self.fill(draw or uniform([sqrt(1 / n) for n in self.rows]))

    @torch.no_grad()
    def fill(self, draw: Initializer) -> None:
        """Overwrite all tables."""
        if self.weight.is_meta:
            return
        for t, n in enumerate(self.rows):
            table = self.table(t)
            for first, last in pieces(n, self.dim):
                if self.storage == "fp32":
                    draw(table[first:last], t, first)
                    continue
                # Drawn as float32 whatever the storage: the same numbers, rounded.
                values = torch.empty(last - first, self.dim)
                draw(values, t, first)
                table[first:last] = values

    def table(self, t: int) -> Tensor:
        """Return the (rows, D) weight of table t; see `Collection.table`."""
        start = sum(self.rows[:t])
        return self.weight.detach()[start : start + self.rows[t]]

    def forward(
        self, ids: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Look up the rows of each bag; see `Collection.forward`."""
        if offsets is None:
            return self.each(ids)
        rows = self.rows_of(ids, offsets, self.starts)
        return self.pooled(rows, offsets, per_sample_weights).view(-1, len(self.rows), self.dim)

    def each(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up the row of each id and add nothing up; see `Collection.each`."""
        return self.lookup(self.rows_of(ids, offsets, self.starts))

    def lookup(self, rows: Tensor) -> Tensor:
        """Return rows of the weight (..., D), which are known to be there, for rows (...) int64."""
        return self._kernels().lookup(self.weight, rows)

    def pooled(
        self, rows: Tensor, offsets: Tensor, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Return the sums (G, D) of bags of rows (L,) of the weight; offsets are (G + 1,)."""
        kernels = self._kernels()
        return kernels.pooled_lookup(
            self.weight, rows, offsets, per_sample_weights=per_sample_weights
        )

    def _kernels(self):
        if self.storage != "fp32":
            mark(
                self.weight,
                split=self.storage == "split",
                nearest=self.storage == "bf16_nearest",
            )
        return backend(self.weight)


def uniform(bounds: Sequence[float]) -> Initializer:
    """Return what draws the rows of table t uniformly from -bounds[t] to bounds[t]."""
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


PIECE_NUMBERS = 1 << 22


class Maker(Protocol):
    """What makes fresh tables: arguments as for `EmbeddingCollection`."""

    def __call__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
        draw: Initializer | None = None,
    ) -> Collection:
        """Return fresh tables."""
        ...


_maker: ContextVar[Maker] = ContextVar("maker", default=EmbeddingCollection)


@contextmanager
def made_by(maker: Maker) -> Iterator[None]:
    """Let this maker make all fresh tables within: where one process is not to keep all of them."""
    before = _maker.set(maker)
    try:
        yield
    finally:
        _maker.reset(before)


def collection(
    rows: Sequence[int],
    dim: int,
    names: Sequence[str] | None = None,
    *,
    storage: Storage = "fp32",
    draw: Initializer | None = None,
) -> Collection:
    """Return fresh tables: an `EmbeddingCollection`, unless `made_by` says otherwise."""
    return _maker.get()(rows, dim, names, storage=storage, draw=draw)


def embeddings_of(module: nn.Module) -> list[Embeddings]:
    """Return the embeddings in a model, without those that others are made of."""
    if isinstance(module, Embeddings):
        return [module]
    return [found for child in module.children() for found in embeddings_of(child)]
