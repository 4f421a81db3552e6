"""Weighted pooling: a bag is the sum of its rows, each times a learned factor of its own."""

from torch import Tensor

from dlrm.nn.embedding import (
    Block,
    Collection,
    EmbeddingCollection,
    Embeddings,
    Layout,
    Storage,
    constant,
)
from dlrm.nn.quantized import QuantizedCollection


class WeightedPooling(Embeddings):
    """`e[bag] = sum of f[i] v[i]` over the ids i of a bag; all factors f start at 1."""

    tables: Collection | QuantizedCollection
    """The tables, quantised or not"""
    factors: Collection
    """(1,) a row"""

    def __init__(self, layout: Layout, dim: int, *, storage: Storage = "fp32"):
        super().__init__(layout, dim)
        self.tables = EmbeddingCollection(layout, dim, storage=storage)
        self.factors = EmbeddingCollection(layout, 1, initializer=constant(1.0))

    def pooled(self, block: Block, per_sample_weights: Tensor | None = None) -> Tensor:
        """Look up rows and their factors; see `Embeddings.pooled`."""
        assert per_sample_weights is None
        return self.tables.pooled(block, self.factors.vectors(block).squeeze(-1))

    def vectors(self, block: Block) -> Tensor:
        """Look up rows times their factors, one by one; see `Embeddings.vectors`."""
        return self.tables.vectors(block) * self.factors.vectors(block)

    def start_at_zero(self) -> None:
        """Make every vector 0; factors stay 1, or the gradient were 0 for ever."""
        self.tables.start_at_zero()
