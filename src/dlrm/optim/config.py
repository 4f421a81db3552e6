"""Which optimizer, and its learning rate over time."""

from dataclasses import dataclass, fields
from inspect import signature
from math import inf
from typing import Any, Literal, get_args

from dlrm.errors import ConfigError
from dlrm.optim import build, find
from dlrm.optim.gradients import RowScope
from dlrm.optim.optimizer import Groups, SparseOptimizer
from dlrm.optim.schedule import learning_rate

FEW_PARAMETERS = 4_000_000
"""A step that passes over so many is not much slower than one over the rows of a batch."""

OPTIONS = ("eps", "beta1", "beta2", "weight_decay", "embedding_l2", "embedding_rows")
"""Settings that are handed to the class of the optimizer, where it takes them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """Which optimizer, and its learning rate over time."""

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
    """The same of the embedding tables, for the rows that take part in a step, once a step each.
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
        if not self.lr > 0:
            raise ConfigError(f"optim.lr is {self.lr}: it must be positive")
        if self.embedding_rows not in (scopes := (*get_args(RowScope), "auto")):
            raise ConfigError(
                f"optim.embedding_rows is {self.embedding_rows!r}: it is one of {', '.join(scopes)}"
            )
        self._check_numbers()
        self._check_options()
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

        Args:
            groups: Parameter groups as `dlrm.nn.embedding.parameter_groups` returns them.
            total: Numbers in all of the model, where these are not all; decides what auto means.

        """
        groups = list(groups)  # pyright: ignore[reportAssignmentType]
        taken = signature(find(self.name)).parameters
        options: dict[str, Any] = {name: getattr(self, name) for name in OPTIONS if name in taken}
        if options.get("embedding_rows") == "auto":
            total = _numbers(groups) if total is None else total
            options["embedding_rows"] = "all" if total <= FEW_PARAMETERS else "touched"
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


def _numbers(groups: Groups) -> int:
    parameters = [
        p for group in groups for p in (group["params"] if isinstance(group, dict) else [group])
    ]
    return sum(p.numel() for p in parameters)
