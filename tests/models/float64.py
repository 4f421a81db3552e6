"""Batches, and the parts that equations share, in plain float64 numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from dlrm.batch import Batch
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.mlp import MLP
from dlrm.schema import CategoricalFeature, DenseFeature, Schema

ROWS = (7, 5, 3)
DENSE = 4
DIM = 3


def schema(dense: int = DENSE, rows: tuple[int, ...] = ROWS) -> Schema:
    return Schema(
        dense=tuple(DenseFeature(name=f"I{i}") for i in range(dense)),
        categorical=tuple(CategoricalFeature(name=f"C{t}", rows=n) for t, n in enumerate(rows)),
    )


def embeddings(dim: int = DIM) -> EmbeddingCollection:
    return EmbeddingCollection(ROWS, dim, [f"C{t}" for t in range(len(ROWS))])


def draw_parameters(model: nn.Module, seed: int) -> None:
    """Draw all parameters anew, so that none is 0 and hides an error."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(std=0.5, generator=generator)


def draw_batch(seed: int, samples: int, *, longest: int | None = None, dense: int = DENSE) -> Batch:
    """One id a feature, or bags of up to `longest`."""
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(samples, dense)))
    labels = torch.from_numpy(rng.integers(0, 2, size=samples).astype(np.float64))
    if longest is None:
        ids = np.stack([rng.integers(0, n, size=samples) for n in ROWS], axis=1)
        return Batch(x, torch.from_numpy(ids), labels)
    lengths = rng.integers(0, longest + 1, size=samples * len(ROWS))
    ids = [rng.integers(0, ROWS[g % len(ROWS)], size=n) for g, n in enumerate(lengths)]
    offsets = np.cumsum([0, *lengths])
    return Batch(x, torch.from_numpy(np.concatenate(ids)), labels, torch.from_numpy(offsets))


def vectors(tables: nn.Module, batch: Batch, b: int) -> list[np.ndarray]:
    """The embedding of each feature of sample b."""
    assert isinstance(tables, EmbeddingCollection)
    found = []
    for t in range(len(ROWS)):
        if batch.offsets is None:
            bag = [int(batch.ids[b, t])]
        else:
            g = b * len(ROWS) + t
            bag = batch.ids[batch.offsets[g] : batch.offsets[g + 1]].tolist()
        table = tables.table(t).numpy()
        found.append(sum((table[i] for i in bag), np.zeros(table.shape[1])))
    return found


def inputs(tables: nn.Module, batch: Batch, b: int) -> np.ndarray:
    """x_0 of sample b: dense features and embeddings side by side."""
    return np.concatenate([batch.dense[b].numpy(), *vectors(tables, batch, b)])


def apply_mlp(mlp: MLP, x: np.ndarray) -> np.ndarray:
    linears = mlp.linears()
    for i, layer in enumerate(linears):
        x = array(layer.weight) @ x + array(layer.bias)
        if mlp.relu_last or i < len(linears) - 1:
            x = np.maximum(x, 0)
    return x


def array(parameter: torch.Tensor | None) -> np.ndarray:
    assert parameter is not None
    return parameter.detach().numpy()


def check_gradients(model: nn.Module, batch: Batch) -> None:
    """Compare all parameters' gradients with finite differences."""
    model(batch).sum().backward()
    step = 1e-6
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        grad = parameter.grad.to_dense().flatten()
        flat = parameter.detach().view(-1)
        for i in range(0, len(flat), max(1, len(flat) // 9)):
            kept, sides = flat[i].item(), []
            for side in (kept + step, kept - step):
                flat[i] = side
                with torch.no_grad():
                    sides.append(float(model(batch).sum()))
            flat[i] = kept
            expected = (sides[0] - sides[1]) / (2 * step)
            assert grad[i].item() == pytest.approx(expected, rel=1e-4, abs=1e-6), name
