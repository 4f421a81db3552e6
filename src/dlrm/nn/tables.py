"""How the embedding tables of a model are stored and compressed."""

from collections.abc import Sequence
from dataclasses import dataclass

from dlrm.errors import ConfigError
from dlrm.nn.embedding import EmbeddingCollection, Embeddings, Storage


@dataclass(frozen=True, kw_only=True, slots=True)
class TablesConfig:
    """How the embedding tables of a model are stored and compressed."""

    storage: Storage = "fp32"
    """bf16 halves them and rounds updates at random; split keeps both halves of a float32 apart, so
    that lookups read half as much and nothing is lost."""
    init_std: float = 0.0
    """Standard deviation of the fresh rows; 0 draws uniformly from +-sqrt(1 / rows)."""

    def __post_init__(self) -> None:
        if self.init_std < 0:
            raise ConfigError(f"tables.init_std is {self.init_std}: it must not be negative")

    def build(self, rows: Sequence[int], dim: int, names: Sequence[str]) -> Embeddings:
        """Return fresh embeddings of T features.

        Args:
            rows: Ids that each feature may take.
            dim: D.
            names: Name of each feature, for errors.

        """
        return EmbeddingCollection(
            rows, dim, names, storage=self.storage, init_std=self.init_std or None
        )
