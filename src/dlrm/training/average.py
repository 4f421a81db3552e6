"""A running mean of a model's parameters: plain over the last steps of training, or exponential.

At a constant learning rate parameters wander around a good place; their mean lies nearer to it than
where they happen to stop, and needs no decay of the rate. From its first step on, the mean is what
is evaluated and kept, while training goes on with the parameters themselves.

    mean_k = mean_(k-1) + (parameters - mean_(k-1)) / k                        the plain one
    mean_k = d mean_(k-1) + (1 - d) parameters, d = min(decay, (k - 1) / (k + 8))  with `decay`

Sources: Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control
Optim. 1992; Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
arXiv 1803.05407.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlrm.errors import ConfigError
from dlrm.optim.config import FEW_PARAMETERS


@dataclass(frozen=True, kw_only=True, slots=True)
class AverageConfig:
    """Settings of the running mean of the parameters."""

    share: float = 0.0
    """Last share of all steps over which parameters are averaged, e.g. 0.5; 0 for not. Best with a
    learning rate that does not decay."""
    decay: float = 0.0
    """Instead of `share`: all steps count, and each time the mean keeps this share of what it was.
    It knows no last step, and suits training that stops early."""
    every: int = 10
    """Steps from one that counts to the next. Each costs a pass over all tables: take more where
    they have millions of rows. With `decay`, so many for each four million parameters."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"average.share is {self.share}: it lies between 0 and 1")
        if not 0 <= self.decay < 1:
            raise ConfigError(f"average.decay is {self.decay}: at least 0 and below 1 is needed")
        if self.share and self.decay:
            raise ConfigError("average.decay stands instead of average.share: one of them is 0")
        if self.every < 1:
            raise ConfigError(f"average.every is {self.every}: at least 1 is needed")

    @property
    def enabled(self) -> bool:
        """Whether there is a mean at all."""
        return bool(self.share or self.decay)


class Average:
    """The mean of all parameters and buffers of a model, in float32: plain or exponential.

    Args:
        model: The model that is trained.
        config: Which steps count, and whether the mean is plain or exponential.
        last_step: The last step of the training, which counts in any case.

    """

    def __init__(self, model: nn.Module, config: AverageConfig, last_step: int):
        self._model, self._every, self._last_step = model, config.every, last_step
        self._start = last_step - round(config.share * last_step)
        self._decay = config.decay
        if config.decay:
            self._start = 0
            parameters = sum(parameter.numel() for parameter in model.parameters())
            self._every *= max(1, -(-parameters // FEW_PARAMETERS))
        self.mean: dict[str, Tensor] = {}
        """By name; empty before the first step that counts."""
        self.count = 0
        """Steps that are in the mean."""

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Take the parameters as they are after this step into the mean, if it counts."""
        if step <= self._start or (self._last_step - step) % self._every:
            return
        self.count += 1
        weight = max(1 - self._decay, 9 / (8 + self.count)) if self._decay else 1 / self.count
        for name, tensor in self._model.state_dict().items():
            if name in self.mean and tensor.is_floating_point():
                self.mean[name].lerp_(tensor.float(), weight)
            else:
                # The first; or a number that only counts, like the batches of a batch norm.
                value = tensor.float() if tensor.is_floating_point() else tensor
                self.mean[name] = value.clone()

    def restore(self, mean: Mapping[str, Tensor], count: int) -> None:
        """Go on from the mean of a checkpoint."""
        self.mean, self.count = dict(mean), count

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Give the model the mean as its parameters, once there is one; give its own back after."""
        if not self.mean:
            yield
            return
        parameters = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        self._model.load_state_dict(self.mean)
        try:
            yield
        finally:
            self._model.load_state_dict(parameters)
