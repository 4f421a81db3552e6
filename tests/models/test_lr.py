"""LR against its equation, rewritten in plain float64 numpy."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import draw, lists_of_one
from dlrm.errors import IdError
from dlrm.models import build
from dlrm.models.lr import LR, LRConfig
from dlrm.nn.embedding import materialize
from dlrm.schema import Schema
from dlrm.training.loss import bce

from .float64 import (
    SCHEMAS,
    SEEDS,
    assert_logits,
    check_gradients,
    draw_batch,
    draw_parameters,
    every_schema,
    first_order,
    make_schema,
)


def make(schema: Schema, seed: int) -> LR:
    return draw_parameters(LRConfig().build(schema), seed)


@settings(deadline=None, max_examples=50)
@given(seed=SEEDS, samples=st.integers(1, 9), longest=st.integers(0, 4), **SCHEMAS)
def test_is_its_equation(seed, samples, longest, ids, labels):
    schema = make_schema(ids, labels)
    model, batch = make(schema, seed), draw_batch(schema, seed, samples, longest)
    assert_logits(model, batch, [first_order(model, schema, batch, b) for b in range(samples)])


def test_one_hot_is_a_list_of_one():
    batch = draw_batch(make_schema(), 0, 2)
    single, several = make(make_schema(), 0), make(make_schema("lists"), 0)
    torch.testing.assert_close(single(batch), several(lists_of_one(batch)), rtol=1e-12, atol=1e-12)


@every_schema
def test_gradients_are_those_of_finite_differences(ids, labels):
    schema = make_schema(ids, labels)
    check_gradients(make(schema, 1), draw_batch(schema, 1, 5))


def test_starts_knowing_nothing():
    schema = make_schema("mixed", 2)
    fresh = materialize(LRConfig().build(schema)).double()
    assert fresh(draw_batch(schema, 2, 6)).tolist() == [[0.0, 0.0]] * 6


def test_labels_are_learnt_apart():
    # With one loss for all, the gradient of a label's parameters is that of its own regression.
    schema, own = make_schema("mixed", 2), make_schema("mixed", 1)
    model, alone = make(schema, 3), make(own, 4)
    batch = draw_batch(schema, 3, 20)
    for ours, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        first = ours.data[:, :1] if ours.shape[0] == 12 else ours.data[:1]
        theirs.data.copy_(first)
    bce(model(batch), batch.labels).backward()
    (bce(alone(batch), batch.labels[:, :1]) / 2).backward()
    for ours, theirs in zip(model.parameters(), alone.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        grad = ours.grad.to_dense()
        first = grad[:, :1] if ours.shape[0] == 12 else grad[:1]
        torch.testing.assert_close(first, theirs.grad.to_dense())


def test_config_builds_it_for_a_schema():
    schema = make_schema()
    lr = build(LRConfig(), schema)
    assert sum(p.numel() for p in lr.parameters()) == 15 + 4 + 1
    batch = draw(schema, 1)
    batch.ids[0, 1] = 5
    with pytest.raises(IdError, match="C1: id 5 is out of range"):
        lr(batch)
