"""The common part of the configs of models with an MLP."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from dlrm.errors import ConfigError
from dlrm.nn.mlp import MLP
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class DeepConfig:
    """Embeddings, and MLPs over them."""

    name: str
    """The model."""
    dim: int = 16
    """Embedding dimension."""
    dropout: float = 0.0
    """Share of the MLPs' hidden units dropped in training."""
    batch_norm: bool = False
    """Whether the MLPs' hidden layers are normalized over the batch."""
    tables: TablesConfig = field(default_factory=lambda: TablesConfig(init_std=0.01))
    """The embedding tables; first-order weights, where the model has any, are stored alike."""

    def mlp(self, sizes: Sequence[int], dtype: ComputeDtype, *, relu_last: bool = False) -> MLP:
        """Return an MLP of these sizes with the dropout and the normalization of this config."""
        return MLP(
            sizes,
            relu_last=relu_last,
            dtype=dtype,
            dropout=self.dropout,
            batch_norm=self.batch_norm,
        )

    def check(self, *positive: str, sizes: Sequence[str] = ("deep",)) -> None:
        """Raise a ConfigError unless these settings, and all sizes of layers, are positive."""
        for name in sizes:
            if any(size < 1 for size in getattr(self, name)):
                raise ConfigError(f"model.{name} is {getattr(self, name)}: sizes must be positive")
        for name in positive:
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} is {getattr(self, name)}: it must be positive")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout is {self.dropout}: at least 0 and below 1 is needed")
