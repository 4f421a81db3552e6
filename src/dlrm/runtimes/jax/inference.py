"""A trained model in JAX."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dlrm.batch import Batch
from dlrm.runtimes.jax.feed import Feed, Inputs, stacked
from dlrm.runtimes.jax.models import check, gathered, logits


class JaxModel:
    """`logits(batch)` of a model of the catalogue, or of an ensemble of them.

    Its numbers are copied, in float32; tables that are compressed or of fewer bits become whole.

    Args:
        model: In evaluation mode, on the CPU.

    Raises:
        ConfigError: There is no such model in JAX.

    """

    @torch.no_grad()
    def __init__(self, model: nn.Module):
        check(model)
        self._feed = Feed(model)
        parts = tuple(f"{name}." for name in self._feed.embeddings)
        self._numbers: dict[str, Any] = {
            name: self._array(tensor)
            for name, tensor in model.state_dict().items()
            if not name.startswith(parts)
        }
        self._tables = {
            name: self._array(stacked(part)) for name, part in self._feed.embeddings.items()
        }

        @jax.jit
        def run(numbers: Any, tables: Any, inputs: Inputs):
            vectors = gathered(self._feed, tables, inputs)
            return logits(model, self._feed, numbers, vectors, inputs)

        self._run = run

    def _array(self, tensor: torch.Tensor) -> jax.Array:
        return jnp.array(tensor.float().numpy(), copy=True, device=jax.devices("cpu")[0])

    def inputs(self, batch: Batch) -> tuple[Inputs, int]:
        """Return a batch as `run` takes it, and its samples."""
        return self._feed(batch), len(batch)

    def run(self, inputs: tuple[Inputs, int]) -> NDArray[np.float32]:
        """Return the logits (B, K), or the predictions of a regression."""
        padded, samples = inputs
        return np.array(self._run(self._numbers, self._tables, padded))[:samples]

    def logits(self, batch: Batch) -> NDArray[np.float32]:
        """Return the logits (B, K) of a batch; an IdError names the feature of a wrong id."""
        return self.run(self.inputs(batch))
