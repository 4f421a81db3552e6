"""Which optimizer, and its learning rate over time."""

from dataclasses import dataclass
from typing import Literal

from dlrm.errors import ConfigError
from dlrm.optim.schedule import learning_rate


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
    decay_share: float = 0.0
    """Decay over this last share of all steps instead, whatever their number; 0 for not."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ConfigError(f"optim.lr is {self.lr}: it must be positive")
        for name in ("warmup_steps", "decay_start", "decay_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"optim.{name} is {getattr(self, name)}: it must not be negative")
        if not 0 <= self.decay_share <= 1:
            raise ConfigError(f"optim.decay_share is {self.decay_share}: it lies between 0 and 1")
        if self.decay_share and (self.decay_start or self.decay_steps):
            raise ConfigError("optim.decay_share stands instead of decay_start and decay_steps")
        if self.decay_steps and self.decay_start < self.warmup_steps:
            raise ConfigError(
                f"optim.decay_start is {self.decay_start}: the decay must not start before "
                f"the warm-up ends at step {self.warmup_steps}"
            )

    def rate(self, step: int, last_step: int) -> float:
        """Return the learning rate of a step, counted from 1, of a run of `last_step` steps."""
        decay_steps = round(self.decay_share * last_step) or self.decay_steps
        return learning_rate(
            step,
            self.lr,
            warmup_steps=self.warmup_steps,
            decay_start=last_step - decay_steps + 1 if self.decay_share else self.decay_start,
            decay_steps=decay_steps,
        )
