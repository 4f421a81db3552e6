"""The layers of `dlrm.nn` in JAX.

A layer takes the torch module, of which it reads sizes and settings, the parameters by their names
in that module, and its inputs; it returns what the module does in float32 and evaluation mode.

Legend: B batch, N dense features, T vectors, D their dimension, K labels.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dlrm.nn.cin import CIN
from dlrm.nn.cross import MatrixCross, VectorCross
from dlrm.nn.embedding import Embeddings
from dlrm.nn.factorization import SecondOrder
from dlrm.nn.fusion import BilinearFusion, Gate
from dlrm.nn.interaction import Cat, Dot, Projection, Sum
from dlrm.nn.mlp import MLP
from dlrm.nn.numbers import Numbers, NumberVectors
from dlrm.runtimes.jax.feed import Lookup

Params = Mapping[str, Array]
"""Name in a module's state dict -> parameter or buffer."""


def under(p: Params, name: str) -> Params:
    """Return the parameters of a module within, by their names in it."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): p[key] for key in p if key.startswith(prefix)}


def flat(x: Array) -> Array:
    """Map (B, n, k) to (B, n*k)."""
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2])


def linear(p: Params, x: Array) -> Array:
    """Map (B, n) to (B, k): `x W^T + b`, without b where there is none."""
    y = x @ p["weight"].T
    return y + p["bias"] if "bias" in p else y


def mlp(m: MLP, p: Params, x: Array) -> Array:
    """Map (B, n) to (B, k), see `dlrm.nn.mlp.MLP`; norms take the statistics that training kept.

    Where p has a random key `dropout`, hidden units are dropped as in training.
    """
    last = len(m.layers) - 1
    for i in range(len(m.layers)):
        x = linear(under(p, f"layers.{i}"), x)
        if i == last and not m.relu_last:
            return x
        if m.norms is not None:
            norm: Any = m.norms[i]
            q = under(p, f"norms.{i}")
            scale = q["weight"] / jnp.sqrt(q["running_var"] + norm.eps)
            x = (x - q["running_mean"]) * scale + q["bias"]
        x = jax.nn.relu(x)
        if "dropout" in p:
            key = jax.random.fold_in(p["dropout"], i)
            x = x * jax.random.bernoulli(key, 1 - m.dropout, x.shape) / (1 - m.dropout)
    return x


def numbers(m: Numbers, dense: Array) -> Array:
    """Map (B, N) to (B, W): piecewise numbers become several, see `dlrm.nn.numbers.Numbers`."""
    if not m.is_piecewise:
        return dense
    x = dense[:, m.source.numpy()] - m.shift.numpy()
    return jnp.clip(x, m.low.numpy(), m.high.numpy())


def number_vectors(m: NumberVectors, p: Params, dense: Array) -> Array:
    """Map (B, N) to (B, N, D), see `dlrm.nn.numbers.NumberVectors`."""
    at_knots = jnp.cumsum(p["steps"], axis=1).reshape(-1, p["steps"].shape[2])
    lower = jnp.minimum(jnp.maximum(jnp.floor(dense), 0), m.last.numpy())
    share = jnp.clip(dense - lower, m.low.numpy(), m.high.numpy())[..., None]
    row = lower.astype(jnp.int32) + m.start.numpy().astype(np.int32)
    return jax.nn.relu((1 - share) * at_knots[row] + share * at_knots[row + 1])


def interaction(m: Dot | Cat | Sum | Projection, p: Params, x: Array, e: Array) -> Array:
    """Map x (B, D) and e (B, T, D) to (B, width), see `dlrm.nn.interaction`."""
    if isinstance(m, Sum):
        return x + e.sum(axis=1)
    v = jnp.concatenate([x[:, None], e], axis=1)
    if isinstance(m, Cat):
        return flat(v)
    if isinstance(m, Projection):
        products = v @ (p["weight"] @ v).swapaxes(1, 2)
        return jnp.concatenate([x, flat(products)], axis=1)
    row, column = np.tril_indices(v.shape[1], 0 if m.self_interaction else -1)
    return jnp.concatenate([x, (v @ v.swapaxes(1, 2))[:, row, column]], axis=1)


def pairs(m: SecondOrder, p: Params, x: Array, e: Array) -> Array:
    """Map x (B, N) and e (B, T, K*D) to (B, K), see `dlrm.nn.factorization.SecondOrder`."""
    dim = e.shape[2] // m.labels
    v = p["vectors"].reshape(x.shape[1], m.labels, dim)
    e = e.reshape(*e.shape[:2], m.labels, dim)
    s = e.sum(axis=1) + jnp.einsum("bn,nkd->bkd", x, v)
    q = (e**2).sum(axis=(1, 3)) + x**2 @ (v**2).sum(axis=2)
    return ((s**2).sum(axis=2) - q) / 2


def vector_cross(m: VectorCross, p: Params, x0: Array) -> Array:
    """Map (B, n) to (B, n), see `dlrm.nn.cross.VectorCross`."""
    weight, bias = p["weight"], p["bias"]
    dots = x0 @ weight.T
    offsets = (weight * (jnp.cumsum(bias, axis=0) - bias)).sum(axis=1)
    a = jnp.ones_like(x0[:, 0])
    for i in range(len(m.weight)):
        a = a + offsets[i] + a * dots[:, i]
    return bias.sum(axis=0) + a[:, None] * x0


def matrix_cross(m: MatrixCross, p: Params, x0: Array) -> Array:
    """Map (B, n) to (B, n), see `dlrm.nn.cross.MatrixCross`."""
    x = x0
    for i in range(len(m.layers)):
        q = under(p, f"layers.{i}")
        whole = "weight" in q
        y = linear(q, x) if whole else linear(under(q, "1"), linear(under(q, "0"), x))
        x = x + x0 * y
    return x


def cin(m: CIN, p: Params, e: Array) -> Array:
    """Map (B, T, D) to (B, H_1 + H_2 + ...), see `dlrm.nn.cin.CIN`."""
    x, sums = e, []
    for i in range(len(m.weights)):
        weight = p[f"weights.{i}"].reshape(-1, e.shape[1], x.shape[1])
        x = jnp.einsum("hji,bjd,bid->bhd", weight, e, x)
        sums.append(x.sum(axis=2))
    last = linear(under(p, "last"), flat(e @ x.swapaxes(1, 2)))
    return jnp.concatenate([*sums, last], axis=1)


def gate(m: Gate, p: Params, x: Array, given: Array | None) -> Array:
    """Map x (B, width) and the context (B, C), or None, to (B, width), see `dlrm.nn.fusion`."""
    context = p["context"] if given is None else given
    return x * (2 * jax.nn.sigmoid(mlp(m.mlp, under(p, "mlp"), context)))


def fusion(m: BilinearFusion, p: Params, u: Array, v: Array) -> Array:
    """Map (B, first) and (B, second) to (B, K), see `dlrm.nn.fusion.BilinearFusion`."""
    pieces_u = u.reshape(len(u), m.heads, -1)
    pieces_v = v.reshape(len(v), m.heads, -1)
    weight = p["weight"].reshape(-1, m.heads, *p["weight"].shape[1:])
    form = jnp.einsum("bhn,khnm,bhm->bk", pieces_u, weight, pieces_v)
    return p["bias"] + u @ p["first"].T + v @ p["second"].T + form


def pooled(m: Embeddings, lookup: Lookup, vectors: Array, samples: int) -> Array:
    """Return the vectors (B, T, D) of a batch from those (M, D) of its rows."""
    single, several = (len(group) for group in m.layout.groups[:2])
    one_hot, lists = vectors[: samples * single], vectors[samples * single :]
    sums = jax.ops.segment_sum(lists, lookup.bags, num_segments=samples * several)
    shapes = (samples, single, m.dim), (samples, several, m.dim)
    together = jnp.concatenate([one_hot.reshape(shapes[0]), sums.reshape(shapes[1])], axis=1)
    return together if m.layout.order is None else together[:, np.array(m.layout.order)]
