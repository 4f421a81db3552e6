"""A model's parameters, drawn and listed in the original's order: tables, bottom MLP, top MLP."""

from math import sqrt

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray

from dlrm.models.dlrm import DLRM

CHUNK = 1 << 20
"""Numbers drawn at a time, so that a large table needs no second copy of itself in float64."""


@torch.no_grad()
def draw_parameters(model: DLRM, rng: RandomState, *, numerics: str) -> None:
    """Draw all parameters of a model.

    Tables are uniform(-sqrt(1/rows), sqrt(1/rows)). HEAD's layers n -> k are
    `W = normal(0, sqrt(2 / (n + k)))` and `b = normal(0, sqrt(1 / k))`; those of the README of 2019
    are all rand.

    Args:
        model: Its parameters are overwritten.
        rng: Random numbers.
        numerics: `head` or `readme2019`.

    """
    for t, rows in enumerate(model.embeddings.rows):
        flat = model.embeddings.table(t).view(-1)
        bound = sqrt(1 / rows)
        for start in range(0, len(flat), CHUNK):
            part = flat[start : start + CHUNK]
            drawn = rng.uniform(-bound, bound, len(part))
            part.copy_(torch.from_numpy(drawn.astype(np.float32)))
    for layer in (*model.bottom.linears(), *model.top.linears()):
        k, n = layer.weight.shape
        if numerics == "readme2019":
            weight, bias = rng.rand(k, n), rng.rand(k)
        else:
            weight = rng.normal(0.0, sqrt(2 / (n + k)), (k, n))
            bias = rng.normal(0.0, sqrt(1 / k), k)
        layer.weight.copy_(torch.from_numpy(weight.astype(np.float32)))
        layer.bias.copy_(torch.from_numpy(bias.astype(np.float32)))


def parameters(model: DLRM) -> list[NDArray[np.float32]]:
    """Return all parameters: each table, then weight and bias of each layer, bottom and top."""
    tables = [model.embeddings.table(t) for t in range(len(model.embeddings.rows))]
    layers = (*model.bottom.linears(), *model.top.linears())
    weights = [p.detach() for layer in layers for p in (layer.weight, layer.bias)]
    return [p.numpy() for p in (*tables, *weights)]
