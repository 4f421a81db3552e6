"""The optimizers of `dlrm.optim` in JAX: one update for dense parameters and rows of tables.

    update(w, state, g, rate, eps) -> w, state

w and g have one shape, a state maps its keys in the checkpoint to arrays. `rate` and `eps` change
from step to step: Adam's hold the correction of its young moments. optax has other ones: its
Adagrad starts from a sum of 0.1, and adds eps below the root.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dlrm.errors import ConfigError
from dlrm.ops.reference.updates import bias_corrected
from dlrm.optim import SGD, Adagrad, Adam, RowWiseAdagrad, SparseOptimizer
from dlrm.runtimes.jax.feed import Lookup
from dlrm.runtimes.jax.models import take

Options = Mapping[str, Any]
"""A parameter group of an optimizer."""
State = dict[str, Array]
Update = Callable[[Options, Array, State, Array, Array, Array], tuple[Array, State]]


def _sgd(group: Options, w: Array, state: State, g: Array, rate: Array, eps: Array):
    """`w -= lr * g`."""
    return w - rate * g, state


def _adagrad(group: Options, w: Array, state: State, g: Array, rate: Array, eps: Array):
    """`s += g^2; w -= lr * g / (sqrt(s) + eps)`, with s of each number, or of each row."""
    squares = g * g
    if state["sum"].ndim < g.ndim:
        squares = squares.mean(axis=1)
    total = state["sum"] + squares
    root = jnp.sqrt(total).reshape(*total.shape, *[1] * (g.ndim - total.ndim))
    return w - rate * (g / (root + eps)), {"sum": total}


def _adam(group: Options, w: Array, state: State, g: Array, rate: Array, eps: Array):
    """`m += (1 - beta1) (g - m); v += (1 - beta2) (g^2 - v); w -= rate * m / (sqrt(v) + eps)`."""
    if table := "moments" in state:
        m, v = state["moments"][:, 0], state["moments"][:, 1]
    else:
        m, v = state["first"], state["second"]
    m = m + (1 - group["beta1"]) * (g - m)
    v = v + (1 - group["beta2"]) * (g * g - v)
    w = w - rate * (m / (jnp.sqrt(v) + eps))
    return w, {"moments": jnp.stack([m, v], axis=1)} if table else {"first": m, "second": v}


_UPDATES: dict[type[SparseOptimizer], Update] = {
    SGD: _sgd,
    Adagrad: _adagrad,
    RowWiseAdagrad: _adagrad,
    Adam: _adam,
}


def update_of(optimizer: object) -> Update:
    """Return the update of an optimizer; a ConfigError names those that JAX has."""
    for kind, update in _UPDATES.items():
        if type(optimizer) is kind:
            return update
    names = "sgd, adagrad, rowwise_adagrad, adam"
    raise ConfigError(
        f"JAX has no optimizer {type(optimizer).__name__}: it has {names}; take PyTorch for others"
    )


def rates(optimizer: SparseOptimizer, group: dict[str, Any]) -> tuple[float, float]:
    """Return the rate and eps of a group's next step, after `optimizer.start_step(group)`."""
    lr, eps = group["lr"], group.get("eps", 0.0)
    if not isinstance(optimizer, Adam):
        return lr, eps
    step = int(optimizer.state[group["params"][0]]["step"])
    return bias_corrected(lr, eps, step, group["beta1"], group["beta2"])


def update_dense(
    update: Update, group: Options, w: Array, state: State, g: Array, rate: Array, eps: Array
) -> tuple[Array, State]:
    """Return a dense parameter and its state after a step, with `g + weight_decay * w` as g."""
    decay = group["weight_decay"]
    return update(group, w, state, g + decay * w if decay else g, rate, eps)


def adds_up(optimizer: SparseOptimizer) -> bool:
    """Return whether an update needs the sum of the gradients of equal rows, and not each."""
    return not isinstance(optimizer, SGD) or any(g["embedding_l2"] for g in optimizer.param_groups)


def summed(lookup: Lookup, g: Array) -> Array:
    """Return the gradients (M, D) of distinct rows from those of all looked-up rows (M, D).

    Where nobody asks for distinct rows they stay as they are.
    """
    if lookup.inverse is None:
        return g
    return jax.ops.segment_sum(g, lookup.inverse, num_segments=len(g))


def update_table(
    update: Update,
    group: Options,
    lookup: Lookup,
    w: Array,
    state: State,
    g: Array,
    rate: Array,
    eps: Array,
) -> tuple[Array, State]:
    """Return a table (R, D) and its state after a step, changed in place where both are donated.

    `g` (M, D) are the gradients of its distinct rows; where none are known, of all looked-up ones.
    """
    if lookup.distinct is None:
        return w.at[lookup.rows].add(-rate * g, mode="drop"), state
    l2, rows = group["embedding_l2"], lookup.distinct
    every = group["embedding_rows"] == "all" and (update is _adam or l2)
    if every:
        g = jnp.zeros_like(w).at[rows].set(g, mode="drop")
        return update(group, w, state, g + l2 * w if l2 else g, rate, eps)
    old, old_state = take(w, rows), {key: take(value, rows) for key, value in state.items()}
    new, new_state = update(group, old, old_state, g + l2 * old if l2 else g, rate, eps)
    w = w.at[rows].set(new, mode="drop")
    return w, {key: state[key].at[rows].set(new_state[key], mode="drop") for key in state}
