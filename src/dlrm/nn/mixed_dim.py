"""Mixed dimensions: large tables have short rows, which a linear map widens.

    e[i] = P_t v[i]          v[i] of d_t numbers, P_t of (D, d_t), one map a table

The dimensions follow from how often the rows of a table are looked up, p_t = k_t / n_t, where a
sample asks k_t of n_t rows:

    d_t = D (p_t / max p)^temperature

Source: Ginart, Naumov, Mudigere, Yang, Zou, "Mixed Dimension Embeddings with Application to
Memory-Efficient Recommendation Systems", arXiv 1909.11810.
"""

from collections.abc import Sequence
from math import log2, sqrt

import torch
from torch import Tensor, nn

from dlrm.errors import ConfigError
from dlrm.nn.concat import ConcatEmbeddings
from dlrm.nn.embedding import Embeddings, Storage, collection, normal


def dimensions(
    rows: Sequence[int],
    dim: int,
    *,
    temperature: float = 0.3,
    queries: Sequence[float] | None = None,
    powers_of_two: bool = False,
) -> list[int]:
    """Return the dimension of each table, from 1 to `dim`.

    Args:
        rows: n, rows of each table.
        dim: D, the dimension of the table whose rows are looked up most.
        temperature: 0 gives all of them D; the higher, the shorter are rarely used rows.
        queries: k, the mean number of ids a sample has for each table; None for 1 each, which
            leaves the sizes alone to decide, as in the original DLRM.
        powers_of_two: Round them to the nearest power of two, which is kept within `dim`.

    """
    queries = [1.0] * len(rows) if queries is None else queries
    popularity = [k / n for k, n in zip(queries, rows, strict=True)]
    most = max(popularity)
    found = [max(1, round(dim * (p / most) ** temperature)) for p in popularity]
    return [min(dim, 2 ** round(log2(d))) for d in found] if powers_of_two else found


class ProjectedEmbeddings(Embeddings):
    """Tables of `width` numbers a row, widened to D by a linear map each.

    Args:
        rows: Rows of each of the T tables.
        dim: D.
        width: d, below D.
        names: Name of each feature, for errors.
        storage: See `EmbeddingCollection`.
        init_std: As there; the maps keep the variance, so that it is that of the vectors too.

    """

    def __init__(
        self,
        rows: Sequence[int],
        dim: int,
        width: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
        init_std: float | None = None,
    ):
        super().__init__(rows, dim, names)
        draw = None if init_std is None else normal(init_std)
        self.tables = collection(rows, width, self.names, storage=storage, draw=draw)
        self.maps = nn.Parameter(torch.empty(len(self.rows), dim, width))
        nn.init.uniform_(self.maps, -sqrt(3 / width), sqrt(3 / width))

    def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up short rows and widen them; see `Embeddings.forward`."""
        short = self.tables(ids, offsets)
        # All tables at once: (T, B, d) times (T, d, D).
        return torch.bmm(short.transpose(0, 1), self.maps.transpose(1, 2)).transpose(0, 1)

    def start_at_zero(self) -> None:
        """Make every vector 0; the maps stay as they are, or the gradient were 0 for ever."""
        self.tables.start_at_zero()


def mixed(
    rows: Sequence[int],
    dim: int,
    dims: Sequence[int],
    names: Sequence[str],
    *,
    storage: Storage = "fp32",
    init_std: float | None = None,
) -> Embeddings:
    """Return embeddings whose tables have dimensions of their own; equal ones are looked up as one.

    Args:
        rows: Rows of each of the T tables.
        dim: D, of the vectors that come out.
        dims: Dimension of each table, at most D.
        names: Name of each feature, for errors.
        storage: See `EmbeddingCollection`.
        init_std: As there.

    Raises:
        ConfigError: A table's dimension is not from 1 to D; names it.

    """
    parts: list[tuple[list[int], Embeddings]] = []
    for name, d in zip(names, dims, strict=True):
        if not 1 <= d <= dim:
            raise ConfigError(f"{name}: its table has dimension {d}, expected 1 to {dim}")
    for d in sorted(set(dims)):
        features = [t for t, each in enumerate(dims) if each == d]
        theirs, called = [rows[t] for t in features], [names[t] for t in features]
        if d == dim:
            draw = None if init_std is None else normal(init_std)
            part = collection(theirs, d, called, storage=storage, draw=draw)
        else:
            part = ProjectedEmbeddings(theirs, dim, d, called, storage=storage, init_std=init_std)
        parts.append((features, part))
    return parts[0][1] if len(parts) == 1 else ConcatEmbeddings(parts)
