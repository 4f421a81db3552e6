"""Mixed dimensions: large tables have short rows, which a linear map widens.

    e[i] = P_t v[i]          v[i] of d_t numbers, P_t of (D, d_t), one map a table

The dimensions follow from how often each of the n_t rows of a table is looked up, which is taken to
be p_t = 1 / n_t of the samples, as in the original DLRM:

    d_t = D (p_t / max p)^temperature

Source: Ginart, Naumov, Mudigere, Yang, Zou, "Mixed Dimension Embeddings with Application to
Memory-Efficient Recommendation Systems", arXiv 1909.11810.
"""

from collections.abc import Mapping, Sequence
from math import log2, sqrt

import torch
from torch import Tensor, nn

from dlrm.batch import bags_of
from dlrm.errors import ConfigError
from dlrm.nn.concat import ConcatEmbeddings
from dlrm.nn.embedding import Block, EmbeddingCollection, Embeddings, Layout, Storage
from dlrm.nn.initializer import constant, fresh_rows
from dlrm.schema import Schema


def dimensions(
    rows: Sequence[int],
    dim: int,
    *,
    temperature: float = 0.3,
    powers_of_two: bool = False,
) -> list[int]:
    """Return the dimension of tables of n `rows`, from 1 to `dim`, which the smallest has.

    A temperature of 0 gives D to all of them; the higher it is, the shorter are rarely used rows.
    `powers_of_two` rounds to the nearest, kept within `dim`.
    """
    most = 1 / min(rows)
    dims = [max(1, round(dim * (1 / n / most) ** temperature)) for n in rows]
    return [min(dim, 2 ** round(log2(d))) for d in dims] if powers_of_two else dims


class ProjectedEmbeddings(Embeddings):
    """Tables of `width` numbers a row, widened to D by a linear map each.

    d is the `width`, below D. The maps keep the variance, so that `init_std` is the standard
    deviation of the vectors too.
    """

    def __init__(
        self,
        layout: Layout,
        dim: int,
        width: int,
        *,
        storage: Storage = "fp32",
        init_std: float | None = None,
    ):
        super().__init__(layout, dim)
        initializer = fresh_rows(layout, init_std)
        self.tables = EmbeddingCollection(layout, width, storage=storage, initializer=initializer)
        self.maps = nn.Parameter(torch.empty(len(layout.tables), dim, width))
        nn.init.uniform_(self.maps, -sqrt(3 / width), sqrt(3 / width))
        for group, features in enumerate(layout.groups):
            self._register(f"tables_{group}", [layout.table_of[f] for f in features])

    def pooled(self, block: Block, per_sample_weights: Tensor | None = None) -> Tensor:
        """Look up short rows and widen their sums; see `Embeddings.pooled`."""
        short = self.tables.pooled(block, per_sample_weights)
        # All features at once: (F, B, d) times (F, d, D).
        return torch.bmm(short.transpose(0, 1), self._maps(block).transpose(1, 2)).transpose(0, 1)

    def vectors(self, block: Block) -> Tensor:
        """Look up short rows and widen them, one by one; see `Embeddings.vectors`."""
        if block.offsets is None:
            return self.pooled(block)
        short, maps = self.tables.vectors(block), self._maps(block)
        if len(maps) == 1:
            return short @ maps[0].t()
        feature = bags_of(block.offsets, short.shape[0]) % len(maps)
        return torch.stack([short @ widen.t() for widen in maps])[
            feature, torch.arange(short.shape[0], device=short.device)
        ]

    def _maps(self, block: Block) -> Tensor:
        """Return the map of each feature's table (F, D, d)."""
        return self.maps.index_select(0, self._registered(f"tables_{block.group}"))

    def start_at_zero(self) -> None:
        """Make every vector 0; the maps stay as they are, or the gradient were 0 for ever."""
        self.tables.start_with(constant(0.0))


def mixed(
    schema: Schema,
    names: Sequence[str],
    dim: int,
    dims: Mapping[str, int],
    *,
    storage: Storage = "fp32",
    init_std: float | None = None,
) -> Embeddings:
    """Return embeddings whose tables have dimensions of their own; equal ones are looked up as one.

    `names` are those of the features, and `dims` name of a table -> its dimension, at most D.

    Raises:
        ConfigError: A table's dimension is not from 1 to D; names it.

    """
    layout = Layout.of(schema, names)
    for name, d in dims.items():
        if not 1 <= d <= dim:
            raise ConfigError(f"{name}: its table has dimension {d}, expected 1 to {dim}")
    parts: list[Embeddings] = []
    for d in sorted({dims[table.name] for table in layout.tables}):
        served = [feature.name for feature in layout.features if dims[feature.table] == d]
        part = Layout.of(schema, served)
        if d == dim:
            initializer = fresh_rows(part, init_std)
            parts.append(EmbeddingCollection(part, d, storage=storage, initializer=initializer))
        else:
            parts.append(ProjectedEmbeddings(part, dim, d, storage=storage, init_std=init_std))
    return parts[0] if len(parts) == 1 else ConcatEmbeddings(layout, parts)
