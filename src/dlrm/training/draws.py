"""The random numbers of one training: two in two threads draw what each draws alone.

Parameters start from numbers of torch's global generator, which torch's layers know alone: it is
lent to one training at a time, and goes on afterwards as if nothing had been drawn. Dropout and
rounding at random draw from generators of the training's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import RLock

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrm.nn.mlp import MLP
from dlrm.optim.optimizer import SparseOptimizer

_GLOBAL = RLock()
_OURS = "dlrm."
_PLAIN = (nn.Linear, nn.ModuleList, nn.Sequential, nn.ReLU)


class Draws:
    """The generators of a training.

    Args:
        device: Where its model is.

    """

    def __init__(self, device: torch.device | str = "cpu"):
        self.host = torch.Generator()
        self.device = self.host
        if torch.device(device).type != "cpu":
            # A device that draws nothing itself takes what is drawn here.
            with suppress(NotImplementedError, RuntimeError):
                self.device = torch.Generator(device)

    def seed(self, seed: int) -> None:
        """Begin anew."""
        self.host.manual_seed(seed)
        self.device.manual_seed(seed)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let torch's global generator draw what this one would, in one thread at a time."""
        with _GLOBAL, torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.host.get_state())
            yield
            self.host.set_state(torch.get_rng_state())

    def give(self, model: nn.Module, optimizer: Optimizer) -> bool:
        """Let a model and its optimizer draw from here.

        Returns:
            Whether the model has layers that are not this project's, which may know torch's global
            generator alone: it must be `lent` to them in each step.

        """
        modules = list(model.modules())
        for module in modules:
            if isinstance(module, MLP):
                module.generator = self.device
        if isinstance(optimizer, SparseOptimizer):
            optimizer.generator = self.host
        return any(
            not (type(module).__module__.startswith(_OURS) or isinstance(module, _PLAIN))
            for module in modules
        )

    def states(self) -> dict[str, Tensor]:
        """Return where the generators stand, as a checkpoint keeps it."""
        states = {"torch_generator": self.host.get_state()}
        if self.device is not self.host:
            states["cuda_generator"] = self.device.get_state()
        return states

    def restore(self, states: dict[str, Tensor]) -> None:
        """Go on from what `states` returned, on this kind of device or another."""
        self.host.set_state(states["torch_generator"])
        if self.device is not self.host and "cuda_generator" in states:
            self.device.set_state(states["cuda_generator"])
