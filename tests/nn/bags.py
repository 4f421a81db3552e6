"""Random ids and bags, and what embeddings must make of them, in plain float64 numpy."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.nn.embedding import Embeddings

Vector = Callable[[int, int], np.ndarray]
"""(table, id) -> its vector (D,)."""

SEEDS = st.integers(0, 2**31)
LARGE = st.lists(st.integers(12, 40), min_size=1, max_size=4)
"""Rows of tables that can be compressed."""


def draw(rows: Sequence[int], samples: int, longest: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return ids (L,) and offsets of bags of up to `longest` ids."""
    rng = np.random.default_rng(seed)
    bags = [
        rng.integers(0, n, size=rng.integers(0, longest + 1)) for _ in range(samples) for n in rows
    ]
    lengths = np.cumsum([0, *map(len, bags)])
    ids = np.concatenate([np.empty(0, dtype=np.int64), *bags])
    return torch.from_numpy(ids), torch.from_numpy(lengths)


def one_hot(rows: Sequence[int], samples: int, seed: int) -> Tensor:
    """Return ids (B, T)."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([rng.integers(0, n, size=samples) for n in rows], axis=1))


def sums(vector: Vector, tables: int, dim: int, ids: Tensor, offsets: Tensor) -> np.ndarray:
    """Return the sum of the vectors of each bag, (B, T, D)."""
    result = np.zeros((len(offsets) - 1, dim))
    for g, (start, stop) in enumerate(pairwise(offsets.tolist())):
        for i in ids[start:stop].tolist():
            result[g] += vector(g % tables, i)
    return result.reshape(-1, tables, dim)


def assert_is(embeddings: Embeddings, vector: Vector, samples: int, seed: int) -> None:
    """Compare embeddings of doubles with the plain sums, one-hot and in bags."""
    tables, dim = len(embeddings.rows), embeddings.dim
    ids, offsets = draw(embeddings.rows, samples, 3, seed)
    found = embeddings(ids, offsets)
    assert found.shape == (samples, tables, dim)
    expected = sums(vector, tables, dim, ids, offsets)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-11, atol=1e-12)
    ids = one_hot(embeddings.rows, samples, seed)
    apart = torch.arange(samples * tables + 1)
    expected = sums(vector, tables, dim, ids.flatten(), apart)
    for found in (embeddings(ids), embeddings(ids.int()), embeddings(ids.flatten(), apart)):
        np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-11, atol=1e-12)


def assert_gradients(embeddings: Embeddings, seed: int) -> None:
    """Compare the gradients of embeddings of doubles with finite differences."""
    ids, offsets = draw(embeddings.rows, 4, 3, seed)
    factor = torch.randn(4, len(embeddings.rows), embeddings.dim, dtype=torch.float64)

    def value() -> Tensor:
        return (embeddings(ids, offsets).sin() * factor).sum()

    embeddings.zero_grad()
    value().backward()
    for name, parameter in embeddings.named_parameters():
        found = parameter.grad
        assert found is not None, name
        found = (found.to_dense() if found.is_sparse else found).flatten()
        values = parameter.detach().view(-1)
        places = np.random.default_rng(seed).permutation(len(values))[:60]
        for i in places.tolist():
            kept, step, sides = values[i].item(), 1e-6, []
            for side in (kept + step, kept - step):
                values[i] = side
                with torch.no_grad():
                    sides.append(float(value()))
            values[i] = kept
            assert abs(found[i].item() - (sides[0] - sides[1]) / (2 * step)) < 1e-6, name


def train(model: nn.Module, rows: Sequence[int], optimizer: torch.optim.Optimizer) -> list[float]:
    """Return the losses of full-batch steps on labels that each id decides for itself."""
    ids = one_hot(rows, 256, seed=5)
    rng = np.random.default_rng(6)
    scores = [torch.from_numpy(rng.normal(size=n)) for n in rows]
    signal = torch.stack([score[ids[:, t]] for t, score in enumerate(scores)]).sum(0)
    batch = Batch(torch.zeros(256, 1), ids, (signal > 0).float())
    losses = []
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(model(batch), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses
