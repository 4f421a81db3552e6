"""The models of the catalogue in JAX: pure functions of parameters and inputs.

    logits = forward(model, parameters, dense)

Parameters are those of the torch model by their names in its state dict, but for embeddings: in
their place stand, by the name of the module, the pooled vectors (B, T, D) of the batch. So tables
are looked up outside, and gradients end at the vectors.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from torch import nn

from dlrm.errors import ConfigError
from dlrm.models.dcn import DCN
from dlrm.models.dcnv2 import DCNV2
from dlrm.models.deepfm import DeepFM
from dlrm.models.dlrm import DLRM
from dlrm.models.finalmlp import FinalMLP
from dlrm.models.fm import FM
from dlrm.models.lr import LR
from dlrm.models.mf import MF
from dlrm.models.standardized import Standardized
from dlrm.models.wide_deep import WideDeep
from dlrm.models.xdeepfm import XDeepFM
from dlrm.runtimes.jax import layers
from dlrm.runtimes.jax.feed import Feed, Inputs, Ints
from dlrm.runtimes.jax.layers import Params, under
from dlrm.training.ensemble import Ensemble


def check(m: nn.Module) -> None:
    """Raise a ConfigError unless there is such a model in JAX; lists those that are."""
    if isinstance(m, Standardized):
        check(m.net)
    elif isinstance(m, Ensemble):
        for member in m.members:
            check(member)
    elif type(m) not in _FORWARD:
        names = ", ".join(
            kind.__name__ for kind in _FORWARD if kind.__module__.startswith("dlrm.models")
        )
        raise ConfigError(
            f"JAX has no model {type(m).__name__}: it has {names}; take PyTorch for your own"
        )


def gathered(feed: Feed, tables: Params, inputs: Inputs) -> dict[str, Array]:
    """Return, by the name of embeddings, the vectors (M, D) of the rows that are looked up.

    `tables` (R, D) are by the same names.
    """
    return {
        name: take(tables[name], inputs.lookups[source].rows)
        for name, source in feed.source.items()
    }


def logits(m: nn.Module, feed: Feed, p: Params, vectors: Params, inputs: Inputs) -> Array:
    """Return the logits (B, K) of padded inputs, or the predictions of a regression.

    Args:
        m: The torch model, see `check`, of which no number is read.
        feed: That the inputs come from.
        p: Parameters and buffers by their names in the model; those of embeddings are not read.
        vectors: See `gathered`.
        inputs: B samples.

    """
    pooled = {
        name: layers.pooled(
            part, inputs.lookups[feed.source[name]], vectors[name], len(inputs.weights)
        )
        for name, part in feed.embeddings.items()
    }
    return forward(m, {**p, **pooled}, jnp.asarray(inputs.dense))


def take(w: Array, rows: Ints) -> Array:
    """Return rows (M, ...) of w (R, ...); zeros for those that it has not."""
    if not len(w):
        return jnp.zeros((len(rows), *w.shape[1:]), w.dtype)
    return w.at[rows].get(mode="fill", fill_value=0)


def forward(m: nn.Module, p: Params, dense: Array) -> Array:
    """Return the logits (B, K), or the predictions of a regression.

    Args:
        m: The torch model, of which no number is read.
        p: Its parameters and buffers; in place of each embeddings their vectors (B, T, D).
        dense: (B, N).

    """
    return _FORWARD[type(m)](m, p, dense)


def _dlrm(m: DLRM, p: Params, dense: Array) -> Array:
    e = p["embeddings"]
    if m.bottom is not None:
        x = layers.mlp(m.bottom, under(p, "bottom"), layers.numbers(m.numbers, dense))
    else:
        assert m.vectors is not None
        vectors = layers.number_vectors(m.vectors, under(p, "vectors"), dense)
        x, e = vectors[:, 0], jnp.concatenate([vectors[:, 1:], e], axis=1)
    crossed = layers.interaction(m.interaction, under(p, "interaction"), x, e)
    logits = layers.mlp(m.top, under(p, "top"), crossed)
    return logits if m.wide is None else logits + _lr(m.wide, under(p, "wide"), dense)


def _lr(m: LR, p: Params, dense: Array) -> Array:
    x = layers.numbers(m.numbers, dense)
    return layers.linear(under(p, "linear"), x) + p["embeddings"].sum(axis=1)


def _fm(m: FM | DeepFM, p: Params, dense: Array) -> Array:
    x = layers.numbers(m.numbers, dense)
    crossed = layers.pairs(m.pairs, under(p, "pairs"), x, p["embeddings"])
    return _lr(m.linear, under(p, "linear"), dense) + crossed


def _deepfm(m: DeepFM, p: Params, dense: Array) -> Array:
    return _fm(m, p, dense) + layers.mlp(m.deep, under(p, "deep"), _flat(m, p, dense))


def _mf(m: MF, p: Params, dense: Array) -> Array:
    products = p["factors"][:, 0] * p["factors"][:, 1]
    products = products.reshape(len(products), len(m.bias), -1).sum(axis=2)
    return p["bias"] + p["biases"].sum(axis=1) + products


def _wide_deep(m: WideDeep, p: Params, dense: Array) -> Array:
    wide = _lr(m.linear, under(p, "linear"), dense)
    if m.crosses is not None:
        wide = wide + p["crosses.weights"].sum(axis=1)
    x = layers.numbers(m.numbers, dense) if m.embeddings is None else _flat(m, p, dense)
    return wide + layers.mlp(m.deep, under(p, "deep"), x)


def _dcn(m: DCN, p: Params, dense: Array) -> Array:
    x0 = _flat(m, p, dense)
    crossed = layers.vector_cross(m.cross, under(p, "cross"), x0)
    return layers.linear(under(p, "last"), crossed) + layers.mlp(m.deep, under(p, "deep"), x0)


def _dcnv2(m: DCNV2, p: Params, dense: Array) -> Array:
    x0 = _flat(m, p, dense)
    x = layers.matrix_cross(m.cross, under(p, "cross"), x0)
    if m.last is None:
        return layers.mlp(m.deep, under(p, "deep"), x)
    return layers.linear(under(p, "last"), x) + layers.mlp(m.deep, under(p, "deep"), x0)


def _xdeepfm(m: XDeepFM, p: Params, dense: Array) -> Array:
    deep = layers.mlp(m.deep, under(p, "deep"), _flat(m, p, dense))
    crossed = layers.cin(m.cin, under(p, "cin"), p["embeddings"])
    return (
        _lr(m.linear, under(p, "linear"), dense) + layers.linear(under(p, "last"), crossed) + deep
    )


def _finalmlp(m: FinalMLP, p: Params, dense: Array) -> Array:
    x, outputs = _flat(m, p, dense), []
    for i, stream in enumerate(m.streams):
        inputs = x
        if len(m.gates):
            t, gate = m.contexts[i], m.gates[i]
            given = None if t is None else p["embeddings"][:, t]
            inputs = layers.gate(gate, under(p, f"gates.{i}"), x, given)  # pyright: ignore[reportArgumentType]
        outputs.append(layers.mlp(stream, under(p, f"streams.{i}"), inputs))  # pyright: ignore[reportArgumentType]
    return layers.fusion(m.fusion, under(p, "fusion"), *outputs)


def _standardized(m: Standardized, p: Params, dense: Array) -> Array:
    return p["mean"] + p["deviation"] * forward(m.net, under(p, "net"), dense)


def _ensemble(m: Ensemble, p: Params, dense: Array) -> Array:
    z = jnp.stack(
        [forward(net, under(p, f"members.{k}"), dense) for k, net in enumerate(m.members)]
    )
    if m.mean == "logits":
        return z.mean(axis=0)
    logs = jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)
    return jax.nn.logsumexp(logs[0], axis=0) - jax.nn.logsumexp(logs[1], axis=0)


def _flat(m: Any, p: Params, dense: Array) -> Array:
    """Return numbers and vectors side by side, (B, W + T*D)."""
    x = layers.numbers(m.numbers, dense)
    return jnp.concatenate([x, layers.flat(p["embeddings"])], axis=1)


_FORWARD: dict[type[nn.Module], Callable[[Any, Params, Array], Array]] = {
    DLRM: _dlrm,
    LR: _lr,
    FM: _fm,
    MF: _mf,
    WideDeep: _wide_deep,
    DeepFM: _deepfm,
    DCN: _dcn,
    DCNV2: _dcnv2,
    XDeepFM: _xdeepfm,
    FinalMLP: _finalmlp,
    Standardized: _standardized,
    Ensemble: _ensemble,
}
