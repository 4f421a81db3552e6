"""The choice of an optimizer, and its learning rate over time."""

from dataclasses import dataclass, fields
from inspect import signature
from math import inf
from typing import Any, Literal, get_args

from dlrm.errors import ConfigError
from dlrm.optim import build, find
from dlrm.optim.optimizer import Groups, RowScope, SparseOptimizer

FEW_PARAMETERS = 4_000_000
"""A step that passes over so many is not much slower than one over the rows of a batch."""

FLOOR = 1e-7
"""The learning rate at which the decay ends, as in the original."""

OPTIONS = ("eps", "beta1", "beta2", "weight_decay", "embedding_l2", "embedding_rows")
"""Settings that are handed to the class of the optimizer, where it takes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """The choice of an optimizer, and its learning rate over time."""

    name: str = "sgd"
    """The optimizer, of dense parameters and embedding tables alike: sgd, adagrad, rowwise_adagrad,
    adam, or module:Class for a dlrm.optim.SparseOptimizer of your own."""
    lr: float = 0.1
    """Learning rate between warm-up and decay."""
    eps: float | None = None
    """Keeps the division of Adagrad and Adam finite; None for 1e-10 in Adagrad, 1e-8 in Adam."""
    beta1: float = 0.9
    """Decay of Adam's mean of gradients."""
    beta2: float = 0.999
    """Decay of Adam's mean of their squares."""
    weight_decay: float = 0.0
    """L2 of dense parameters, biases included: adds weight_decay / 2 * ||w||^2 to what is
    minimised, though not to the loss that is shown. The leaderboards' net_regularizer."""
    embedding_l2: float = 0.0
    """L2 of the embedding tables, for the rows that take part in a step, once a step each.
    The leaderboards' embedding_regularizer, with embedding_rows all."""
    embedding_rows: RowScope | Literal["auto"] = "touched"
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
        scopes = (*get_args(RowScope), "auto")
        for name, holds, expected in (
            ("lr", self.lr > 0, "it must be positive"),
            ("eps", self.eps is None or 0 < self.eps < inf, "it must be positive"),
            ("beta1", 0 <= self.beta1 < 1, "it is at least 0 and below 1"),
            ("beta2", 0 <= self.beta2 < 1, "it is at least 0 and below 1"),
            ("weight_decay", 0 <= self.weight_decay < inf, "it must not be negative"),
            ("embedding_l2", 0 <= self.embedding_l2 < inf, "it must not be negative"),
            ("embedding_rows", self.embedding_rows in scopes, f"it is one of {', '.join(scopes)}"),
            ("warmup_steps", self.warmup_steps >= 0, "it must not be negative"),
            ("decay_start", self.decay_start >= 0, "it must not be negative"),
            ("decay_steps", self.decay_steps >= 0, "it must not be negative"),
            ("decay_share", 0 <= self.decay_share <= 1, "it lies between 0 and 1"),
        ):
            if not holds:
                raise ConfigError(f"optim.{name} is {getattr(self, name)!r}: {expected}")
        self._check_options()
        if self.decay_share and (self.decay_start or self.decay_steps):
            raise ConfigError("optim.decay_share stands instead of decay_start and decay_steps")
        if self.decay_steps and self.decay_start < self.warmup_steps:
            raise ConfigError(
                f"optim.decay_start is {self.decay_start}: the decay must not start before "
                f"the warm-up ends at step {self.warmup_steps}"
            )

    def _check_options(self) -> None:
        try:
            taken = signature(find(self.name)).parameters
        except ConfigError as error:
            raise ConfigError(f"optim.name is {self.name!r}: {error}") from error
        defaults = {field.name: field.default for field in fields(self)}
        for name in OPTIONS:
            value = getattr(self, name)
            # With auto, all rows take part only where the optimizer can have it so.
            if name not in taken and value != defaults[name] and value != "auto":
                raise ConfigError(f"optim.{name} is {value}, but {self.name} takes none")

    def build(self, groups: Groups, *, total: int | None = None) -> SparseOptimizer:
        """Return the optimizer over these parameters.

        `total` are the numbers in all of the model, where the groups are not all; it decides what
        auto means.
        """
        groups = list(groups)  # pyright: ignore[reportAssignmentType]
        taken = signature(find(self.name)).parameters
        options: dict[str, Any] = {name: getattr(self, name) for name in OPTIONS if name in taken}
        if options.get("embedding_rows") == "auto":
            weights = (g["params"] if isinstance(g, dict) else [g] for g in groups)
            numbers = total or sum(weight.numel() for group in weights for weight in group)
            options["embedding_rows"] = "all" if numbers <= FEW_PARAMETERS else "touched"
        return build(self.name, groups, self.lr, **options)

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


def learning_rate(
    step: int, base: float, *, warmup_steps: int = 0, decay_start: int = 0, decay_steps: int = 0
) -> float:
    """Return the learning rate of a step.

        step < warmup_steps:                 base * (step / warmup_steps)
        decay_start <= step < its end:       base * ((end - step) / decay_steps)^2
        from there on:                       that of the last decay step

    where end = decay_start + decay_steps.

    Args:
        step: Optimizer steps taken before this one is complete; the first step is 1.
        base: Learning rate between warm-up and decay.
        warmup_steps: Steps of linear warm-up; 0 for none.
        decay_start: First step of the decay.
        decay_steps: Steps of quadratic decay; 0 for none.

    """
    if step < warmup_steps:
        return base * step / warmup_steps
    if decay_steps and step >= decay_start:
        last = decay_start + decay_steps - 1
        remaining = decay_start + decay_steps - min(step, last)
        return max(FLOOR, base * (remaining / decay_steps) ** 2)
    return base
