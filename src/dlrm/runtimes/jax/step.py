"""The training step in JAX, in place of `dlrm.training.step.TrainStep`.

    batch -> inputs of few shapes -> rows gathered -> forward, loss, gradients -> clip -> update

Tables stay outside of what is differentiated: gradients are of the rows that were gathered, and
their updates are scattered into the tables, whose memory is donated and changed in place.

The numbers are JAX's from the first step on. The torch model and its optimizer, which evaluations
and checkpoints read, get them whenever somebody asks these for their numbers or for logits.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax import Array
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.mlp import MLP
from dlrm.optim import SparseOptimizer
from dlrm.runtimes.jax import layers
from dlrm.runtimes.jax.feed import Feed, Inputs
from dlrm.runtimes.jax.losses import Loss
from dlrm.runtimes.jax.models import forward
from dlrm.runtimes.jax.updates import State, rates, summed, take, update_dense, update_of, update_table

class JaxStep:
    """`step(batch) -> loss`, for a model of the catalogue with plain tables in float32, on the CPU.

    Args:
        model: `forward(batch) -> logits (B, K)`; its parameters are where training starts.
        optimizer: Of its parameters, and of `dlrm.optim`.
        loss: Of each sample and label.
        rate: Number of a step, from 1 -> its learning rate; None leaves that of the optimizer.
        clip: Largest norm of all gradients together; 0 for any.
        steps: Taken before.
        samples: Of a whole batch, to which the last of an epoch is padded; 0 pads each to a power
            of two.

    Raises:
        ConfigError: The model, its tables or its optimizer are none that JAX trains; says what to
            take instead.

    """

    logits: Tensor
    """(B, K), of the last step, before its update"""

    def __init__(
        self,
        model: nn.Module,
        optimizer: SparseOptimizer,
        loss: Loss,
        *,
        rate: Callable[[int], float] | None = None,
        clip: float = 0.0,
        steps: int = 0,
        samples: int = 0,
    ):
        self.optimizer, self.rate, self.steps = optimizer, rate, steps
        self._model, self._loss, self._clip = model, loss, clip
        self._update = update_of(optimizer)
        self._feed = Feed(model, samples=samples, distinct=True)
        self._check()
        self._device = jax.devices("cpu")[0]
        groups = {id(p): n for n, g in enumerate(optimizer.param_groups) for p in g["params"]}
        self._groups = {name: groups[id(p)] for name, p in model.named_parameters()}
        """Number of each parameter's group."""
        self._tables = {f"{name}.weight": name for name in self._feed.embeddings}
        """Name of each table's parameter -> that of its embeddings."""
        self._weights: dict[str, Array] = {}
        self._state: dict[str, State] = {}
        self._read()
        self._compiled = jax.jit(self._step, donate_argnums=(0, 1))
        self._newer = False
        # Whoever reads numbers of the model asks one of these two first.
        model.register_state_dict_pre_hook(lambda *_: self.write_back())
        model.register_forward_pre_hook(lambda *_: self.write_back())

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def __call__(self, batch: Batch) -> Tensor:
        """Train on a batch and return its mean loss, a scalar.

        Raises:
            IdError: An id is out of range; names the feature.

        """
        self.steps += 1
        inputs = self._feed(batch)
        scalars = []
        for group in self.optimizer.param_groups:
            if self.rate is not None:
                group["lr"] = self.rate(self.steps)
            self.optimizer.start_step(group)
            scalars.append(rates(self.optimizer, group))
        with jax.default_device(self._device):
            loss, logits, self._weights, self._state = self._compiled(
                self._weights, self._state, self._buffers, inputs, scalars
            )
        self._newer = True
        self.logits = torch.from_dlpack(logits)[: len(batch)]
        return torch.from_dlpack(loss)

    @torch.no_grad()
    def write_back(self) -> None:
        """Let the torch model and its optimizer have the numbers of the last step."""
        if not self._newer:
            return
        self._newer = False
        for name, parameter in self._model.named_parameters():
            parameter.copy_(torch.from_dlpack(self._weights[name]))
            for key, value in self._state[name].items():
                self.optimizer.state[parameter][key].copy_(torch.from_dlpack(value))
