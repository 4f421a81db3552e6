"""Which optimizer, and its learning rate over time."""

from dataclasses import dataclass
from typing import Literal

from dlrm.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Which optimizer, and its learning rate over time."""

    name: Literal["sgd", "adagrad", "rowwise_adagrad"] = "sgd"
    """The optimizer, of dense parameters and embedding tables alike."""
    lr: float = 0.1
    """Learning rate between warm-up and decay."""
    warmup_steps: int = 0
    """Steps of linear warm-up; 0 for none."""
    decay_start: int = 0
    """First step of the decay."""
    decay_steps: int = 0
    """Steps of quadratic decay; 0 for none."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ConfigError(f"optim.lr is {self.lr}: it must be positive")
        for name in ("warmup_steps", "decay_start", "decay_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"optim.{name} is {getattr(self, name)}: it must not be negative")
        if self.decay_steps and self.decay_start < self.warmup_steps:
            raise ConfigError(
                f"optim.decay_start is {self.decay_start}: the decay must not start before "
                f"the warm-up ends at step {self.warmup_steps}"
            )
