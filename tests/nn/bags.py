"""What embeddings must make of any batch, in plain float64 numpy."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from batches import draw, ids_of
from dlrm.batch import Batch
from dlrm.nn.embedding import Embeddings, Layout
from dlrm.schema import Schema
from dlrm.training.loss import bce

Vector = Callable[[str, int], np.ndarray]
"""(name of a table, id) -> its vector (D,)."""

SEEDS = st.integers(0, 2**31)
ROWS = st.lists(st.integers(1, 9), min_size=1, max_size=4)
"""Rows of tables."""
LARGE = st.lists(st.integers(12, 40), min_size=1, max_size=4)
"""Rows of tables that can be compressed."""


def layout(*rows: int) -> Layout:
    """Return the layout of one-hot features C1, C2, ... with a table each."""
    return Layout.of(Schema.one_hot(0, rows))


def ids(*samples: list[int]) -> Batch:
    """Return a batch of these ids (B, T1) alone."""
    return Batch(torch.empty(len(samples), 0), torch.tensor(samples), torch.zeros(len(samples), 1))


def number(embeddings: Embeddings, table: str) -> int:
    """Return the position of a table in the layout of embeddings."""
    return [entry.name for entry in embeddings.layout.tables].index(table)


def sums(schema: Schema, names: tuple[str, ...], dim: int, vector: Vector, batch: Batch):
    """Return the sum of the vectors of each sample and feature, (B, T, D)."""
    result = np.zeros((len(batch), len(names), dim))
    for b in range(len(batch)):
        for t, name in enumerate(names):
            for i in ids_of(schema, batch, b, name):
                result[b, t] += vector(schema.feature(name).table, i)
    return result


def assert_is(
    embeddings: Embeddings,
    schema: Schema,
    vector: Vector,
    samples: int,
    seed: int,
    *,
    rtol: float = 1e-11,
    atol: float = 1e-12,
) -> None:
    """Compare embeddings with the plain sums, and their sequences with the plain vectors."""

    def close(ours: Tensor, theirs: np.ndarray) -> None:
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=rtol, atol=atol)

    names, dim = embeddings.names, embeddings.dim
    batch = draw(schema, samples, seed=seed)
    out = embeddings(batch)
    assert out.shape == (samples, len(names), dim)
    close(out, sums(schema, names, dim, vector, batch))
    narrow = replace(
        batch,
        ids=batch.ids.int(),
        lists=batch.lists and batch.lists._replace(values=batch.lists.values.int()),
    )
    assert torch.equal(embeddings(narrow), out)
    for t, name in enumerate(names):
        if not schema.feature(name).is_list:
            continue
        values, offsets = embeddings.sequence(batch, name)
        lists = [ids_of(schema, batch, b, name) for b in range(samples)]
        assert offsets.tolist() == np.cumsum([0, *map(len, lists)]).tolist()
        table = schema.feature(name).table
        rows = [vector(table, i) for entries in lists for i in entries]
        close(values, np.array(rows).reshape(-1, dim))
        pooled = [values[first:last].sum(0) for first, last in itertools.pairwise(offsets)]
        close(torch.stack(pooled), out[:, t].detach().numpy())


def assert_gradients(embeddings: Embeddings, schema: Schema, seed: int) -> None:
    """Compare the gradients of embeddings of doubles with finite differences."""
    batch = draw(schema, 4, seed=seed)
    factor = torch.randn(4, len(embeddings.names), embeddings.dim, dtype=torch.float64)
    lists = [name for name in embeddings.names if schema.feature(name).is_list]

    def value() -> Tensor:
        total = (embeddings(batch).sin() * factor).sum()
        for name in lists:
            total = total + embeddings.sequence(batch, name).values.cos().sum()
        return total

    embeddings.zero_grad()
    value().backward()
    for name, parameter in embeddings.named_parameters():
        grad = parameter.grad
        assert grad is not None, name
        grad = (grad.to_dense() if grad.is_sparse else grad).flatten()
        values = parameter.detach().view(-1)
        places = np.random.default_rng(seed).permutation(len(values))[:60]
        for i in places.tolist():
            kept, step, sides = values[i].item(), 1e-6, []
            for side in (kept + step, kept - step):
                values[i] = side
                with torch.no_grad():
                    sides.append(float(value()))
            values[i] = kept
            assert abs(grad[i].item() - (sides[0] - sides[1]) / (2 * step)) < 1e-6, name


def labelled(schema: Schema, samples: int = 256) -> Batch:
    """Return samples with labels that the ids decide, each by a score of its own."""
    batch = draw(schema, samples, seed=5)
    rng = np.random.default_rng(6)
    scores = {table.name: rng.normal(size=table.num_embeddings) for table in schema.tables}
    signal = [
        sum(
            scores[feature.table][ids_of(schema, batch, b, feature.name)].sum()
            for feature in schema.features
        )
        for b in range(samples)
    ]
    labels = torch.tensor(np.array(signal) > 0).float()[:, None].repeat(1, schema.num_labels)
    return replace(batch, dense=torch.zeros_like(batch.dense), labels=labels)


def train(model: nn.Module, schema: Schema, optimizer: torch.optim.Optimizer) -> list[float]:
    """Return the losses of full-batch steps on labels that each id decides for itself."""
    batch = labelled(schema)
    losses = []
    for _ in range(60):
        loss = bce(model(batch), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
