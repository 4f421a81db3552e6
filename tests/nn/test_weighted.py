"""Weighted pooling against its definition, quantised or not."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import draw, history_schema, schemas
from dlrm.compat.model import WeightedPooling
from dlrm.nn.embedding import Layout, materialize
from dlrm.nn.initializer import normal
from dlrm.nn.quantized import QuantizedCollection, quantize

from .bags import ROWS, SEEDS, assert_gradients, assert_is, number


@settings(deadline=None, max_examples=40)
@given(schema=schemas(ROWS), samples=st.integers(1, 5), seed=SEEDS)
def test_is_its_definition(schema, samples, seed):
    torch.manual_seed(seed)
    weighted = materialize(WeightedPooling(Layout.of(schema), 3)).double()
    weighted.factors.fill(normal(1.0))

    def vector(table: str, i: int) -> np.ndarray:
        t = number(weighted, table)
        return weighted.tables.table(t)[i].numpy() * weighted.factors.table(t)[i].numpy()

    assert_is(weighted, schema, vector, samples, seed)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(1)
    schema = history_schema(rows=(9, 20, 12))
    weighted = materialize(WeightedPooling(Layout.of(schema), 3)).double()
    weighted.factors.fill(normal(1.0))
    assert_gradients(weighted, schema, seed=2)


@pytest.mark.parametrize("storage", ["fp32", "bf16", "split"])
def test_factors_start_at_one_and_zero_can_be_left(storage):
    schema = history_schema()
    weighted = WeightedPooling(Layout.of(schema), 4, storage=storage)
    weighted.start_at_zero()
    materialize(weighted)
    batch = draw(schema, 5)
    assert not weighted(batch).any()
    weighted(batch).sum().backward()
    for collection in (weighted.tables, weighted.factors):
        (weight,) = collection.parameters()
        assert weight.grad is not None
        assert weight.grad.is_sparse
    assert (weighted.factors.table(0) == 1).all()


def test_quantised_its_factors_stay():
    torch.manual_seed(3)
    schema = history_schema()
    weighted = materialize(WeightedPooling(Layout.of(schema), 16))
    small = quantize(weighted, "int8")
    assert isinstance(small.tables, QuantizedCollection)
    assert torch.equal(small.factors.table(1), weighted.factors.table(1))
    batch = draw(schema, 9)
    with torch.no_grad():
        torch.testing.assert_close(small(batch), weighted(batch), atol=0.01, rtol=0)
