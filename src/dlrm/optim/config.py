"""Which optimizer, and its learning rate over time."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Literal, get_args, get_type_hints

from torch import nn
from torch.optim import Optimizer

from dlrm.errors import ConfigError
from dlrm.optim import build
from dlrm.optim.gradients import Rows
from dlrm.optim.schedule import learning_rate

FEW_PARAMETERS = 4_000_000
"""A step that passes over so many is not much slower than one over the rows of a batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Which optimizer, and its learning rate over time."""

    name: Literal["sgd", "adagrad", "rowwise_adagrad", "adam"] = "sgd"
    """The optimizer, of dense parameters and embedding tables alike."""
    lr: float = 0.1
    """Learning rate between warm-up and decay."""
    eps: float | None = None
    """Keeps the division of Adagrad and Adam finite; None for 1e-10 in Adagrad, 1e-8 in Adam. Of no
    meaning to sgd, as the betas are to all but Adam."""
    beta1: float = 0.9
    """Decay of Adam's mean of gradients."""
    beta2: float = 0.999
    """Decay of Adam's mean of their squares."""
    weight_decay: float = 0.0
    """L2 of dense parameters, biases included: adds weight_decay / 2 * ||w||^2 to what is
    minimised, though not to the loss that is shown. The leaderboards' net_regularizer."""
    embedding_l2: float = 0.0
    """The same of the embedding tables, for the rows that take part in a step, once a step each.
    The leaderboards' embedding_regularizer, with embedding_rows all."""
    embedding_rows: Rows | Literal["auto"] = "touched"
    """Rows of the tables that take part in a step: touched, those that the batch looks up; all, as
    the leaderboards do: L2 then reaches every row, and Adam also moves those without a gradient.
    All costs a pass over all tables and their state in each step: fine for thousands of rows, not
    for millions. Without L2 it differs in Adam alone. auto is all for a model of up to four million
    parameters."""
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
        if self.name not in (names := get_args(get_type_hints(OptimConfig)["name"])):
            raise ConfigError(f"optim.name is {self.name!r}: it is one of {', '.join(names)}")
        if self.embedding_rows not in (rows := (*get_args(Rows), "auto")):
            raise ConfigError(
                f"optim.embedding_rows is {self.embedding_rows!r}: it is one of {', '.join(rows)}"
            )
        self._check_numbers()
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

    def _check_numbers(self) -> None:
        for name in ("weight_decay", "embedding_l2"):
            if not 0 <= getattr(self, name) < inf:
                raise ConfigError(f"optim.{name} is {getattr(self, name)}: it must not be negative")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"optim.{name} is {getattr(self, name)}: it is at least 0 and below 1"
                )
        if self.eps is not None and not 0 < self.eps < inf:
            raise ConfigError(f"optim.eps is {self.eps}: it must be positive")

    def build(self, parameters: Iterable[nn.Parameter], *, total: int | None = None) -> Optimizer:
        """Return the optimizer over these parameters.

        Args:
            parameters: Dense and embedding weights alike.
            total: Numbers in all of the model, where these are not all; decides what auto means.

        """
        parameters, rows = list(parameters), self.embedding_rows
        if rows == "auto":
            total = sum(p.numel() for p in parameters) if total is None else total
            rows = "all" if total <= FEW_PARAMETERS else "touched"
        return build(
            self.name,
            parameters,
            self.lr,
            eps=self.eps,
            beta1=self.beta1,
            beta2=self.beta2,
            weight_decay=self.weight_decay,
            embedding_l2=self.embedding_l2,
            embedding_rows=rows,
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
