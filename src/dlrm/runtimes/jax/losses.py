"""Losses of `dlrm.training.loss` in JAX, sample by sample and label by label.

A loss takes logits z (B, K), or predictions of a regression, and labels y (B, K), and returns
(B, K); the step takes the mean over what are samples.
"""

from collections.abc import Callable, Sequence
from math import inf, log

import jax
import jax.numpy as jnp
from jax import Array
from torch import Tensor

from dlrm.schema import Task
from dlrm.training.loss import LossConfig

Loss = Callable[[Array, Array], Array]


def loss_function(
    config: LossConfig, task: Task = "classification", scale: Tensor | None = None
) -> Loss:
    """Return the loss of a run; arguments and errors as of `dlrm.training.loss.loss_function`."""
    match config.resolve(task):
        case "bce":
            return bce
        case "weighted_bce":
            return lambda z, y: _per_class(y, config.weights) * bce(z, y)
        case "mse":
            if task == "classification":
                return squared_error
            unit = 1.0 if scale is None else scale.numpy()
            return lambda z, y: jnp.square((z - y) / unit)


def original_loss(name: str, weights: Sequence[float] = (1.0, 1.0), threshold: float = 0.0) -> Loss:
    """Return a loss of the original, of probabilities that are rounded as its are.

    Args:
        name: mse, bce or wbce, as `--loss-function` has it.
        weights: Of negatives and positives in wbce.
        threshold: t keeps probabilities within [t, 1 - t]; 0 does not.

    """
    bound = log(1 / threshold - 1) if 0.0 < threshold < 1.0 else inf

    def loss(z: Array, y: Array) -> Array:
        z = jnp.clip(z, -bound, bound)
        if name == "mse":
            return squared_error(z, y)
        losses = _bce_of_probabilities(jax.nn.sigmoid(z), y)
        return losses if name == "bce" else _per_class(y, weights) * losses

    return loss


def bce(z: Array, y: Array) -> Array:
    """Binary cross-entropy of logits; finite for any, for labels in [0, 1]."""
    return jax.nn.softplus(z) - z * y


def squared_error(z: Array, y: Array) -> Array:
    """Squared error of probabilities."""
    return jnp.square(jax.nn.sigmoid(z) - y)


@jax.custom_jvp
def _bce_of_probabilities(p: Array, y: Array) -> Array:
    """Binary cross-entropy, at most 100, with the gradient that torch gives it at 0 and 1."""
    low = -100.0
    return -(y * jnp.maximum(jnp.log(p), low) + (1 - y) * jnp.maximum(jnp.log1p(-p), low))


@_bce_of_probabilities.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    p, y = primals
    slope = (p - y) / jnp.maximum(p * (1 - p), 1e-12)
    return _bce_of_probabilities(p, y), slope * tangents[0]


def _per_class(y: Array, weights: Sequence[float]) -> Array:
    return jnp.where(y.astype(jnp.int32) == 1, weights[1], weights[0])
