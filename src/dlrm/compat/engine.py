"""What the loop is handed: a model in the framework that computes it.

Flags, data, random numbers and printed lines are the same whatever computes. Another framework is
a file with an `Engine` of its own and `dlrm_s_pytorch.main(arguments, its_engine)`.
"""

from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor

from dlrm.batch import Batch
from dlrm.compat import saved_model
from dlrm.compat.flags import Flags
from dlrm.compat.model import OPTIMIZERS, spread_collections
from dlrm.compat.parameters import parameters
from dlrm.compat.printing import print_loaded
from dlrm.compat.quantization import quantize
from dlrm.compat.saved_model import State
from dlrm.models.dlrm import DLRM
from dlrm.nn.embedding import parameter_groups
from dlrm.optim import build
from dlrm.optim.config import learning_rate
from dlrm.parallel.model import ParallelModel
from dlrm.parallel.world import World
from dlrm.training.loss import Loss, mse
from dlrm.training.step import TrainStep


class Engine(Protocol):
    """A DLRM that a framework trains and tests."""

    loaded: State | None
    """Where `--load-model` was saved; None without it"""

    @property
    def steps(self) -> int:
        """Optimizer steps since the start of training."""
        ...

    def step(self, batch: Batch) -> float:
        """Train on this process' part of a batch.

        Returns what it adds to the mean loss of the whole batch, before the update.
        """
        ...

    def logits(self, batch: Batch) -> Tensor:
        """Return the logits (b, 1) of this process' part of a batch, within --loss-threshold."""
        ...

    def parameters(self) -> list[NDArray[np.float32]]:
        """Return all parameters: those of each table, then weight and bias of each layer."""
        ...

    def save(self, state: State) -> None:
        """Write the file of `--save-model`, which says where training stands."""
        ...


NewEngine = Callable[[Flags, DLRM, RandomState, World], Engine]
"""Returns the engine of a run, given a model whose parameters have been drawn, and the random
numbers that a loaded model brings along. Loads `--load-model`."""


class PyTorch:
    """The engine of `dlrm_s_pytorch`, on one process or on several."""

    def __init__(self, flags: Flags, model: DLRM, rng: RandomState, world: World):
        self._flags, self._model, self._rng, self._world = flags, model, rng, world
        self.optimizer = self.loaded = None
        if not flags.inference_only:
            name = OPTIMIZERS[flags.optimizer]
            self.optimizer = build(name, parameter_groups(model), flags.learning_rate)
        if flags.load_model:
            print(f"Loading saved model {flags.load_model}")
            path = Path(flags.load_model)
            self.loaded = saved_model.load(path, flags.optimizer, model, self.optimizer, rng, world)
            print_loaded(self.loaded)
        if self.optimizer is None:
            quantize(flags, model, world)
        self._net = model
        if world.size > 1:
            exchange = spread_collections(model)[0].exchange
            self._net = ParallelModel(model, exchange, world.group)
        if self.optimizer is not None:
            self._step = TrainStep(
                self._net,
                self.optimizer,
                original_loss(flags),
                rate=lambda number: rate(flags, number),
                steps=self.loaded.steps if self.loaded else 0,
                accumulate=flags.mlperf_grad_accum_iter if flags.mlperf_logging else 1,
            )

    @property
    def steps(self) -> int:
        """Optimizer steps since the start of training."""
        return self._step.steps

    def step(self, batch: Batch) -> float:
        """Train on a batch; see `Engine.step`."""
        return self._step(batch).item()

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """Return the logits (b, 1) of a batch."""
        return bounded(self._flags, self._net(batch))

    def parameters(self) -> list[NDArray[np.float32]]:
        """Return all parameters, gathered from all processes."""
        return parameters(self._model)

    def save(self, state: State) -> None:
        """Write the file of `--save-model`; all processes call this."""
        path = Path(self._flags.save_model)
        assert self.optimizer is not None
        saved_model.save(path, state, self._model, self.optimizer, self._rng, self._world)


def bounded(flags: Flags, logits: Tensor) -> Tensor:
    """Return logits whose probabilities are within [t, 1 - t], for a t of `--loss-threshold`."""
    if not 0.0 < flags.loss_threshold < 1.0:
        return logits
    bound = log(1 / flags.loss_threshold - 1)
    return logits.clamp(-bound, bound)


def original_loss(flags: Flags) -> Loss:
    """Return `--loss-function`: from logits (B, 1) and their batch to the mean over it.

    Losses are of rounded probabilities, not of logits: one that float32 rounds to 0 or 1 has a loss
    of at most 100 and no gradient, where a loss of logits would still pull. Runs that blow up go on
    differently, and what is printed depends on it.
    """

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        probabilities, labels = bounded(flags, logits).sigmoid(), batch.labels
        if flags.loss_function == "mse":
            return mse(probabilities, labels)
        if flags.loss_function == "bce":
            return F.binary_cross_entropy(probabilities, labels)
        losses = F.binary_cross_entropy(probabilities, labels, reduction="none")
        return (torch.tensor(flags.loss_weights)[labels.long()] * losses).mean()

    return loss


def rate(flags: Flags, step: int) -> float:
    """Return the learning rate of a step, counted from 1.

    As in the original, warm-up that is followed by decay stays at its last step until the decay
    starts, a little below the learning rate.
    """
    warmup, decay_start = flags.lr_num_warmup_steps, flags.lr_decay_start_step
    if flags.lr_num_decay_steps and 0 < warmup <= step < decay_start:
        step = warmup - 1
    return learning_rate(
        step,
        flags.learning_rate,
        warmup_steps=warmup,
        decay_start=decay_start,
        decay_steps=flags.lr_num_decay_steps,
    )
