"""Weighted pooling: a bag is the sum of its rows, each times a learned factor of its own."""

from collections.abc import Sequence

from torch import Tensor

from dlrm.nn.embedding import Collection, Embeddings, Storage, collection, constant
from dlrm.nn.quantized import QuantizedCollection


class WeightedPooling(Embeddings):
    """`e[bag] = sum of f[i] v[i]` over the ids i of a bag; all factors f start at 1.

    Args:
        rows: Rows of each of the T tables.
        dim: D.
        names: Name of each feature, for errors.
        storage: Of the tables, see `EmbeddingCollection`.

    """

    tables: Collection | QuantizedCollection
    """The tables, quantised or not"""

    def __init__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
    ):
        super().__init__(rows, dim, names)
        self.tables = collection(rows, dim, self.names, storage=storage)
        self.factors = collection(rows, 1, self.names, draw=constant(1.0))

    def forward(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Look up rows and their factors; see `Embeddings.forward`."""
        factors = self.factors.each(ids, offsets)
        if offsets is None:
            return self.tables(ids) * factors
        return self.tables(ids, offsets, factors.flatten())

    def start_at_zero(self) -> None:
        """Make every vector 0; factors stay 1, or the gradient were 0 for ever."""
        self.tables.start_at_zero()
