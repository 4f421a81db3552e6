"""A model's parameters, drawn and listed in the original's order: tables, bottom MLP, top MLP.

Most come from numpy's random numbers. What the original draws with torch's are quotients,
remainders and the maps of mixed dimensions; there, torch also fills each new layer once before
numpy does, which moves its random numbers on. Every process draws all numbers, and keeps those of
its tables.
"""

from collections.abc import Callable
from math import sqrt

import numpy as np
import torch
from numpy.random import RandomState
from numpy.typing import NDArray
from torch import Tensor

from dlrm.compat.flags import Flags
from dlrm.compat.model import WeightedPooling
from dlrm.models.dlrm import DLRM
from dlrm.nn.concat import ConcatEmbeddings
from dlrm.nn.embedding import Collection, Embeddings
from dlrm.nn.initializer import pieces
from dlrm.nn.mixed_dim import ProjectedEmbeddings
from dlrm.nn.qr import QREmbeddings


def new_generator(flags: Flags) -> torch.Generator:
    """Return torch's random numbers as they are when the original makes its model."""
    generator = torch.Generator().manual_seed(flags.numpy_rand_seed)
    if flags.debug_mode:
        # The batches were printed: each pass over a DataLoader draws a number.
        torch.empty((), dtype=torch.int64).random_(generator=generator)
    return generator


@torch.no_grad()
def draw_parameters(
    model: DLRM, rng: RandomState, generator: torch.Generator, *, numerics: str
) -> None:
    """Draw all parameters of a model.

    Tables are uniform(-sqrt(1/rows), sqrt(1/rows)). HEAD's layers n -> k are
    `W = normal(0, sqrt(2 / (n + k)))` and `b = normal(0, sqrt(1 / k))`; those of the README of 2019
    are all rand. Quotients and remainders are uniform(sqrt(1/rows), 1), the maps Xavier's uniform.
    """
    mixed = any(isinstance(module, ProjectedEmbeddings) for module in model.modules())
    compressed = mixed or any(isinstance(module, QREmbeddings) for module in model.modules())
    for part, t in _tables(model.embeddings):
        if isinstance(part, QREmbeddings):
            low = sqrt(1 / part.layout.sizes[t])
            for tables in (part.quotients, part.remainders):
                _fill(
                    tables, t, lambda values, low=low: values.uniform_(low, 1, generator=generator)
                )
            continue
        tables = _stacked(part)
        if compressed:
            _fill(tables, t, lambda values: values.normal_(generator=generator))
        if mixed:
            _fill(tables, t, lambda values: values.uniform_(generator=generator))
        if isinstance(part, ProjectedEmbeddings):
            bound = sqrt(6 / sum(part.maps[t].shape))
            for _ in range(2):
                part.maps[t].uniform_(-bound, bound, generator=generator)
        bound = sqrt(1 / tables.layout.sizes[t])
        _fill(tables, t, lambda values, bound=bound: _draw_uniform(values, bound, rng))
    assert model.bottom is not None
    for layer in (*model.bottom.linears(), *model.top.linears()):
        k, n = layer.weight.shape
        if numerics == "readme2019":
            weight, bias = rng.rand(k, n), rng.rand(k)
        else:
            weight = rng.normal(0.0, sqrt(2 / (n + k)), (k, n))
            bias = rng.normal(0.0, sqrt(1 / k), k)
        layer.weight.copy_(torch.from_numpy(weight.astype(np.float32)))
        layer.bias.copy_(torch.from_numpy(bias.astype(np.float32)))


def _fill(tables: Collection, t: int, draw: Callable[[Tensor], object]) -> None:
    """Draw the rows of table t, and forget them where another process keeps them."""
    # Of a table that is spread whole, one process has a part, which is all of it.
    rows = next((part.rows for part in tables.parts(t)), None)
    # Piece by piece, so that a large table needs no second copy of itself.
    for first, last in pieces(tables.layout.sizes[t], tables.dim):
        draw(torch.empty(last - first, tables.dim) if rows is None else rows[first:last])


def _draw_uniform(values: Tensor, bound: float, rng: RandomState) -> None:
    drawn = rng.uniform(-bound, bound, tuple(values.shape))
    values.copy_(torch.from_numpy(drawn.astype(np.float32)))


def parameters(model: DLRM) -> list[NDArray[np.float32]]:
    """Return all parameters: those of each table, then weight and bias of each layer.

    Tables that are spread are gathered; all processes ask for them.
    """
    tensors: list[Tensor] = []
    for part, t in _tables(model.embeddings):
        if isinstance(part, QREmbeddings):
            tensors += [part.quotients.table(t), part.remainders.table(t)]
        else:
            tensors.append(_stacked(part).table(t))
        if isinstance(part, ProjectedEmbeddings):
            tensors.append(part.maps[t])
    if isinstance(model.embeddings, WeightedPooling):
        factors = model.embeddings.factors
        tensors += [factors.table(t).flatten() for t in range(len(factors.layout.tables))]
    assert model.bottom is not None
    for layer in (*model.bottom.linears(), *model.top.linears()):
        tensors += [layer.weight, layer.bias]
    return [p.detach().numpy() for p in tensors]


def _tables(embeddings: Embeddings) -> list[tuple[Embeddings, int]]:
    """Return the part that each table lies in, and its number there."""
    parts = [embeddings]
    if isinstance(embeddings, ConcatEmbeddings):
        parts = embeddings.typed_parts()
    places = {table.name: (part, t) for part in parts for t, table in enumerate(part.layout.tables)}
    return [places[table.name] for table in embeddings.layout.tables]


def _stacked(part: Embeddings) -> Collection:
    """Return the tables, without what is around them."""
    if isinstance(part, ProjectedEmbeddings | WeightedPooling):
        part = part.tables
    if not isinstance(part, Collection):
        raise TypeError(f"{type(part).__name__} has no tables that the original knows")
    return part
