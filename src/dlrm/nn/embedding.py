"""Embeddings, the seam of the project, and the plain collection of tables behind it.

    embeddings(batch)                  (B, T, D), one pooled vector per sample and feature
    embeddings.sequence(batch, name)   the vectors of a list feature, one by one, in their order

Sharding, compression, quantisation and serving replace the one object that maps ids to vectors;
models, losses and metrics do not know. The plain collection stacks all tables of one dimension and
looks them up together. Its backward pass leaves `(ids, grad)` as a sparse `weight.grad`, which the
optimizers of `dlrm.optim` apply to the rows that were looked up, so that no gradient of table size
ever exists while clipping and accumulation work as usual.

A model is built with its tables on torch's `meta` device, where they take no memory; `materialize`
gives them memory and their first numbers. What stands in between, such as spreading tables over
processes, replaces collections by their path in the model.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from dlrm.batch import Batch, Jagged, bags_of
from dlrm.errors import ConfigError, IdError
from dlrm.nn.initializer import Initializer, constant, fresh_rows, pieces
from dlrm.nn.layout import Block, Layout
from dlrm.ops import backend, id_backend
from dlrm.ops.memory import in_huge_pages
from dlrm.ops.storage import Storage

M = TypeVar("M", bound=nn.Module)


class Indexed(nn.Module):
    """A module with whole numbers, by name, on its device; a checkpoint does not have them."""

    def _register(self, name: str, values: Sequence[int]) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.int64), persistent=False)

    def _registered(self, name: str) -> Tensor:
        # As `get_buffer`, which also walks paths: small batches notice.
        values = self._buffers[name]
        assert values is not None
        return values


class Embeddings(Indexed):
    """Vectors of D numbers for the ids of T categorical features, as a model sees them.

    A subclass defines `vectors`, and `pooled` where there is a shorter way to the sums.
    """

    derived: bool
    """Whether the model computes the ids from those of the batch: nothing can be sent ahead then"""

    def __init__(self, layout: Layout, dim: int):
        super().__init__()
        self.layout = layout
        self.dim = dim
        self.derived = False
        for group, features in enumerate(layout.groups):
            sizes = [layout.sizes[layout.table_of[f]] for f in features]
            self._register(f"sizes_{group}", sizes)
        self._register("order", layout.order or ())
        self._register("columns", layout.columns or ())

    @property
    def num_features(self) -> int:
        """T, the features that are served."""
        return len(self.layout.features)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each feature."""
        return tuple(feature.name for feature in self.layout.features)

    def forward(self, batch: Batch) -> Tensor:
        """Look up the row of each one-hot feature, and the sum of the rows of each list.

        Returns:
            (B, T, D); zeros for an empty list.

        Raises:
            IdError: An id is negative or not below the rows of its table; names the feature.

        """
        columns = None if self.layout.columns is None else self._registered("columns")
        return self._look_up(batch, self.layout.blocks(batch, columns))

    def _look_up(self, batch: Batch, blocks: list[Block]) -> Tensor:
        if len(blocks) == 1:
            return self.pooled(blocks[0])
        return self._joined(batch, [self.pooled(block) for block in blocks])

    def _joined(self, batch: Batch, parts: list[Tensor]) -> Tensor:
        """Return the vectors (B, T, D) of all features from those of each block."""
        if not parts:
            return torch.zeros(batch.labels.shape[0], 0, self.dim, device=batch.labels.device)
        vectors = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        if self.layout.order is None:
            return vectors
        return vectors.index_select(1, self._registered("order"))

    def sequence(self, batch: Batch, name: str) -> Jagged:
        """Return the vectors (L, D) of a list feature one by one, with offsets (B + 1,).

        Raises:
            ConfigError: There is no such list feature; lists the choices.
            IdError: As for `forward`.

        """
        try:
            group = self.layout.group_of(name)
        except KeyError:
            choices = [f.name for f in self.layout.features if f.is_list]
            raise ConfigError(
                f'"{name}" is no list feature; choose one of: {", ".join(choices) or "(none)"}'
            ) from None
        block = self.layout.block(batch, group)
        assert block.offsets is not None
        return Jagged(self.vectors(block), block.offsets)

    def pooled(self, block: Block, per_sample_weights: Tensor | None = None) -> Tensor:
        """Look up the rows of a block of ids, and add up those of each list: (B, F, D).

        Each row is multiplied by its per_sample_weights, in the shape of the ids, where they are
        given; they also get a gradient.
        """
        values = self.vectors(block)
        if per_sample_weights is not None:
            values = values * per_sample_weights[..., None]
        if block.offsets is None:
            return values
        return add_up(values, block.offsets, len(self.layout.groups[block.group]))

    def vectors(self, block: Block) -> Tensor:
        """Look up the row of each id and add nothing up: (B, F, D) when one-hot, else (L, D)."""
        raise NotImplementedError

    def prefetch(self, batch: Batch) -> None:
        """Send the ids of a batch ahead, where vectors come from elsewhere.

        The next call of `forward`, which must be of the same batch, then only waits for them.
        """

    @torch.no_grad()
    def start_at_zero(self) -> None:
        """Make every vector 0, in such a way that training can move it from there."""
        for collection in collections_of(self):
            collection.start_with(constant(0.0))

    @property
    def size_bytes(self) -> int:
        """Bytes of the tables and of all that belongs to them, as a checkpoint holds them."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    def checked_ids(self, block: Block, starts: Tensor | None = None) -> Tensor:
        """Check the ids of a block and turn them into rows of stacked tables, int64 in their shape.

        `starts` (F,) int64 are the first row of each feature's table; None leaves ids as they are.

        Raises:
            IdError: An id is out of range, or offsets do not rise from 0 to L. On a device other
                than a CPU nothing is checked, which would have to wait for it: see
                `Layout.check`.

        """
        sizes = self._registered(f"sizes_{block.group}")
        if block.offsets is None and block.ids.shape[1] != sizes.shape[0]:
            raise IdError(f"ids for {block.ids.shape[1]} features, expected {sizes.shape[0]}")
        if starts is None:
            starts = torch.zeros_like(sizes)
        rows, wrong = id_backend(block.ids).rows_of(block.ids, starts, sizes, block.offsets)
        if wrong != -1:
            raise self.layout.id_error(block, wrong)
        return rows


class StackedTables(Embeddings):
    """Tables whose rows lie one after another as one, so that one kernel looks all of them up."""

    def __init__(self, layout: Layout, dim: int):
        super().__init__(layout, dim)
        self.starts = tuple(sum(layout.sizes[:t]) for t in range(len(layout.sizes)))
        """First row of each table"""
        for group, features in enumerate(layout.groups):
            self._register(f"starts_{group}", [self.starts[layout.table_of[f]] for f in features])

    def pooled(self, block: Block, per_sample_weights: Tensor | None = None) -> Tensor:
        """Look up the rows of a block and add up those of each list; see `Embeddings.pooled`."""
        if block.offsets is None:
            return super().pooled(block, per_sample_weights)
        sums = self.pooled_rows(self.rows(block), block.offsets, per_sample_weights)
        return sums.view(-1, len(self.layout.groups[block.group]), self.dim)

    def vectors(self, block: Block) -> Tensor:
        """Look up the row of each id and add nothing up; see `Embeddings.vectors`."""
        return self.lookup(self.rows(block))

    def rows(self, block: Block) -> Tensor:
        """Check the ids of a block and return their rows, int64 in their shape."""
        return self.checked_ids(block, self._registered(f"starts_{block.group}"))

    def lookup(self, rows: Tensor) -> Tensor:
        """Return rows (..., D), which are known to be there, for rows (...) int64."""
        raise NotImplementedError

    def pooled_rows(
        self, rows: Tensor, offsets: Tensor, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Return the sums (G, D) of bags of rows (L,); offsets are (G + 1,)."""
        raise NotImplementedError


def add_up(values: Tensor, offsets: Tensor, features: int) -> Tensor:
    """Return the sums (B, F, D) of the values (L, D) of each list, from offsets (B*F + 1,)."""
    sums = values.new_zeros(offsets.shape[0] - 1, values.shape[1])
    sums = sums.index_add(0, bags_of(offsets, values.shape[0]), values)
    return sums.view(-1, features, values.shape[1])


class Part(NamedTuple):
    """Rows and columns of a table."""

    rows: Tensor
    """(rows, columns), a view without gradient"""
    first_row: int = 0
    """The first of the rows in the table."""
    columns: slice = slice(None)
    """Which columns of the table they have."""


class Collection(Embeddings):
    """Tables that stand behind one object, whoever keeps their rows.

    All other embeddings are made of such ones.

    `storage` says how rows are stored, though float32 comes out, and so is the gradient;
    `initializer` what fresh rows are, those of `fresh_rows` where none is given.
    """

    def __init__(
        self,
        layout: Layout,
        dim: int,
        *,
        storage: Storage = "fp32",
        initializer: Initializer | None = None,
    ):
        super().__init__(layout, dim)
        self.storage: Storage = storage
        self.initializer = initializer or fresh_rows(layout)

    @property
    def materialized(self) -> bool:
        """Whether the tables have memory."""
        return not any(parameter.is_meta for parameter in self.parameters())

    def materialize(self, device: torch.device) -> None:
        """Give the tables memory on a device, and their first numbers."""
        raise NotImplementedError

    def start_with(self, initializer: Initializer) -> None:
        """Let the tables have these numbers, from now on or once they have memory."""
        self.initializer = initializer
        if self.materialized:
            self.fill(initializer)

    @torch.no_grad()
    def fill(self, initializer: Initializer) -> None:
        """Overwrite all tables.

        Numbers are drawn as float32 on the CPU whatever the storage and the device, and all of them
        by every process, which keeps its own: a model starts from the same numbers everywhere.
        """
        for t, n in enumerate(self.layout.sizes):
            parts = self.parts(t)
            shape, dtype = (n, self.dim), torch.float32
            fitting = (p.rows for p in parts if p.rows.shape == shape and p.rows.dtype == dtype)
            whole = next((rows for rows in fitting if rows.is_cpu), None)
            for first, last in pieces(n, self.dim):
                if whole is not None:
                    initializer(whole[first:last], t, first)
                    continue
                values = torch.empty(last - first, self.dim)
                initializer(values, t, first)
                for rows, place, columns in parts:
                    low, high = max(first, place), min(last, place + len(rows))
                    if low < high:
                        drawn = values[low - first : high - first, columns]
                        rows[low - place : high - place] = drawn.to(rows.device, rows.dtype)

    def parts(self, t: int) -> list[Part]:
        """Return the parts of table t that lie here."""
        raise NotImplementedError

    def table(self, t: int) -> Tensor:
        """Return the (num_embeddings, D) numbers of table t, without gradient.

        A view where they lie here.
        """
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the weights that this process updates as groups of an optimizer, see `dlrm.optim`.

        A group has `params`, `sparse` True, and the `storage` of its rows.
        """
        raise NotImplementedError


class EmbeddingCollection(Collection, StackedTables):
    """Tables of dimension D, stacked into one weight.

    A `weight` (R, D) is taken instead of drawing, without a copy if it is stored alike.
    """

    def __init__(
        self,
        layout: Layout,
        dim: int,
        *,
        storage: Storage = "fp32",
        initializer: Initializer | None = None,
        weight: Tensor | None = None,
    ):
        super().__init__(layout, dim, storage=storage, initializer=initializer)
        if weight is None:
            weight = torch.empty(sum(layout.sizes), dim, dtype=_dtype(storage), device="meta")
        self.weight = nn.Parameter(weight.detach().to(_dtype(storage)))

    def materialize(self, device: torch.device) -> None:
        """Give the tables memory on a device, and their first numbers."""
        empty = torch.empty(self.weight.shape, dtype=self.weight.dtype, device=device)
        self.weight = nn.Parameter(in_huge_pages(empty), self.weight.requires_grad)
        self.fill(self.initializer)

    def parts(self, t: int) -> list[Part]:
        """Return the whole table; see `Collection.parts`."""
        return [Part(self.table(t))]

    def table(self, t: int) -> Tensor:
        """Return the (num_embeddings, D) weight of table t; see `Collection.table`."""
        start = self.starts[t]
        return self.weight.detach()[start : start + self.layout.sizes[t]]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the weight; see `Collection.parameter_groups`."""
        return [{"params": [self.weight], "sparse": True, "storage": self.storage}]

    def _look_up(self, batch: Batch, blocks: list[Block]) -> Tensor:
        if len(blocks) < 2 or torch.compiler.is_exporting():
            return super()._look_up(batch, blocks)
        # Both at once: torch would add up the gradients of two lookups row by row, which takes
        # longer than all else.
        rows = torch.cat([self.rows(block).flatten() for block in blocks])
        starts, ends = self.layout.ranges(*blocks)
        if self.layout.order is not None:
            order = self._registered("order")
            starts, ends = starts.index_select(1, order), ends.index_select(1, order)
        sums = self.kernels().pooled_ranges(self.weight, rows, starts.flatten(), ends.flatten())
        return sums.view(*starts.shape, self.dim)

    def lookup(self, rows: Tensor) -> Tensor:
        """Return rows of the weight (..., D), which are known to be there, for rows (...) int64."""
        return self.kernels().lookup(self.weight, rows)

    def pooled_rows(
        self, rows: Tensor, offsets: Tensor, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """Return the sums (G, D) of bags of rows (L,) of the weight; offsets are (G + 1,)."""
        kernels = self.kernels()
        return kernels.pooled_lookup(
            self.weight, rows, offsets, per_sample_weights=per_sample_weights
        )

    def one_hot_block(self, batch: Batch) -> Block | None:
        """Return the ids of all features, in their order, or None unless each has one a sample."""
        columns = None if self.layout.columns is None else self._registered("columns")
        blocks = self.layout.blocks(batch, columns)
        if len(blocks) != 1 or blocks[0].offsets is not None or self.layout.order is not None:
            return None
        return blocks[0]

    def ranges(self, block: Block) -> tuple[Tensor, Tensor]:
        """Return first row in the weight and rows of the table of each feature of a block, (F,)."""
        return self._registered(f"starts_{block.group}"), self._registered(f"sizes_{block.group}")

    def kernels(self):
        """Return the module whose kernels run on the weight, see `dlrm.ops.backend`."""
        weight = self.weight
        if weight.is_meta:
            raise ConfigError("these tables have no memory yet: see dlrm.nn.embedding.materialize")
        # A copy of a parameter does not keep this.
        if self.storage != "fp32" and weight.grad_dtype != torch.float32:
            weight.grad_dtype = torch.float32
        return backend(weight)


def _dtype(storage: Storage) -> torch.dtype:
    return torch.float32 if storage == "fp32" else torch.bfloat16


def collections_of(module: nn.Module) -> list[Collection]:
    """Return the collections in a model, in its order, without those that others are made of."""
    return _outermost(module, Collection)


def embeddings_of(module: nn.Module) -> list[Embeddings]:
    """Return the embeddings in a model, in its order, without those that others are made of."""
    return _outermost(module, Embeddings)


def _outermost(module: nn.Module, kind: type[M]) -> list[M]:
    if isinstance(module, kind):
        return [module]
    return [inner for child in module.children() for inner in _outermost(child, kind)]


def materialize(model: M, device: torch.device | str = "cpu") -> M:
    """Give all tables of a model that have none yet memory on a device, and move the rest there.

    The model is changed in place, and its parameters are new ones: make optimizers afterwards.
    """
    device = torch.device(device)
    for collection in collections_of(model):
        if not collection.materialized:
            collection.materialize(device)
    return model.to(device)


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters of a model as groups of an optimizer: dense ones, then tables'.

    Parameters of tables get sparse gradients; see `Collection.parameter_groups`.
    """
    tables = [
        group for collection in collections_of(model) for group in collection.parameter_groups()
    ]
    sparse = {id(parameter) for group in tables for parameter in group["params"]}
    dense = [parameter for parameter in model.parameters() if id(parameter) not in sparse]
    groups = [{"params": dense, "sparse": False}] if dense else []
    return groups + tables
