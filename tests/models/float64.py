"""Schemas, and the parts that equations share, in plain float64 numpy."""

from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from batches import draw, ids_of
from dlrm.batch import Batch
from dlrm.nn.embedding import EmbeddingCollection, Embeddings, materialize
from dlrm.nn.mlp import MLP
from dlrm.schema import Feature, Schema, Table

ROWS = (7, 5, 3)
DENSE = 4
DIM = 3

M = TypeVar("M", bound=nn.Module)
Ids = Literal["one_hot", "lists", "mixed"]

IDS: tuple[Ids, ...] = ("one_hot", "lists", "mixed")
SEEDS = st.integers(0, 2**31)
SCHEMAS = {"ids": st.sampled_from(IDS), "labels": st.sampled_from([1, 2])}
"""What the schemas of a property go through."""

every_schema = pytest.mark.parametrize(("ids", "labels"), [(i, k) for i in IDS for k in (1, 2)])


def make_schema(
    ids: Ids = "one_hot", labels: int = 1, *, dense: int = DENSE, rows: tuple[int, ...] = ROWS
) -> Schema:
    """Features C0, C1, ... that are ids, lists, or a sequence between ids that share its table."""
    names = [f"C{t}" for t in range(len(rows))]
    named = tuple(f"y{k}" for k in range(labels))
    if ids != "mixed":
        kind = "one_hot" if ids == "one_hot" else "bag"
        return Schema.one_hot(dense, rows, names, kind=kind, labels=named)
    first, second, _ = rows
    return replace(
        Schema.one_hot(dense, [], labels=named),
        tables=(Table(name="T1", num_embeddings=second), Table(name="T0", num_embeddings=first)),
        features=(
            Feature(name="C0", table="T0"),
            Feature(name="C1", table="T1", kind="sequence"),
            Feature(name="C2", table="T1"),
        ),
    )


def draw_parameters(model: M, seed: int) -> M:
    """Return a built model in float64; no parameter is 0, which would hide an error."""
    generator = torch.Generator().manual_seed(seed)
    materialize(model).double()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.5, generator=generator)
    return model


def draw_batch(schema: Schema, seed: int, samples: int, longest: int = 3) -> Batch:
    """Return random samples in float64."""
    return draw(schema, samples, longest=longest, seed=seed, dtype=torch.float64)


def vectors(embeddings: Embeddings, schema: Schema, batch: Batch, b: int) -> list[np.ndarray]:
    """The embedding of each feature of sample b: the sum of the rows of its ids."""
    assert isinstance(embeddings, EmbeddingCollection)
    tables = [table.name for table in embeddings.layout.tables]
    sums = []
    for name in embeddings.names:
        table = embeddings.table(tables.index(schema.feature(name).table)).numpy()
        rows = [table[i] for i in ids_of(schema, batch, b, name)]
        sums.append(sum(rows, np.zeros(embeddings.dim)))
    return sums


def inputs(embeddings: Embeddings, schema: Schema, batch: Batch, b: int) -> np.ndarray:
    """x_0 of sample b: dense features and embeddings side by side."""
    return np.concatenate([batch.dense[b].numpy(), *vectors(embeddings, schema, batch, b)])


def first_order(linear: nn.Module, schema: Schema, batch: Batch, b: int) -> np.ndarray:
    """The logits (K,) of logistic regression for sample b."""
    weights = linear.get_submodule("embeddings")
    assert isinstance(weights, Embeddings)
    weight, bias = (array(linear.get_parameter(f"linear.{name}")) for name in ("weight", "bias"))
    rows = vectors(weights, schema, batch, b)
    return bias + weight @ batch.dense[b].numpy() + sum(rows, np.zeros(len(bias)))


def all_pairs(
    factors: torch.Tensor, embeddings: Embeddings, schema: Schema, batch: Batch, b: int
) -> np.ndarray:
    """The products of all pairs of features of sample b (K,), with the factors of each label."""
    labels, logits = schema.num_labels, []
    every = [x * v for x, v in zip(batch.dense[b].numpy(), array(factors), strict=True)]
    every += vectors(embeddings, schema, batch, b)
    for k in range(labels):
        own = [np.split(vector, labels)[k] for vector in every]
        logits.append(sum(own[i] @ own[j] for i in range(len(own)) for j in range(i)))
    return np.array(logits)


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


def assert_logits(model: nn.Module, batch: Batch, expected: list[np.ndarray]) -> None:
    """Compare the logits (B, K) with those of an equation."""
    np.testing.assert_allclose(
        model(batch).detach().numpy(), np.array(expected), rtol=1e-9, atol=1e-9
    )


def check_gradients(model: nn.Module, batch: Batch) -> None:
    """Compare all parameters' gradients with finite differences; each logit counts differently."""
    counts = torch.linspace(1, 2, batch.labels.numel(), dtype=torch.float64)

    def value() -> torch.Tensor:
        return model(batch).flatten() @ counts

    value().backward()
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
                    sides.append(float(value()))
            flat[i] = kept
            expected = (sides[0] - sides[1]) / (2 * step)
            assert grad[i].item() == pytest.approx(expected, rel=1e-4, abs=1e-6), name
