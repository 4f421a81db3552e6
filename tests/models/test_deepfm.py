"""DeepFM against its equation, all pairs written out in float64."""

import numpy as np
import torch
from hypothesis import given, settings

from batches import draw
from dlrm.batch import Batch
from dlrm.models import build
from dlrm.models.deepfm import DeepFM, DeepFMConfig
from dlrm.schema import Schema

from .float64 import (
    SCHEMAS,
    SEEDS,
    all_pairs,
    apply_mlp,
    assert_logits,
    check_gradients,
    draw_batch,
    draw_parameters,
    every_schema,
    first_order,
    inputs,
    make_schema,
)


def make(schema: Schema, seed: int) -> DeepFM:
    return draw_parameters(DeepFMConfig(dim=3, deep=(6, 5)).build(schema), seed)


def equation(model: DeepFM, schema: Schema, batch: Batch) -> list[np.ndarray]:
    return [
        first_order(model.linear, schema, batch, b)
        + all_pairs(model.pairs.vectors, model.embeddings, schema, batch, b)
        + apply_mlp(model.deep, inputs(model.embeddings, schema, batch, b))
        for b in range(len(batch))
    ]


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, **SCHEMAS)
def test_is_its_equation(seed, ids, labels):
    schema = make_schema(ids, labels)
    model, batch = make(schema, seed), draw_batch(schema, seed, 5)
    assert_logits(model, batch, equation(model, schema, batch))


@every_schema
def test_gradients_are_those_of_finite_differences(ids, labels):
    schema = make_schema(ids, labels)
    check_gradients(make(schema, 3), draw_batch(schema, 3, 6))


def test_config_builds_it_for_a_schema():
    model = DeepFMConfig(dim=3, deep=(8,)).build(make_schema())
    assert [tuple(layer.weight.shape) for layer in model.deep.linears()] == [(8, 13), (1, 8)]
    assert model.linear.embeddings.dim == 1
    # Each label has its weights and its factors; the MLP sees all of them.
    two = DeepFMConfig(dim=3, deep=(8,)).build(make_schema(labels=2))
    assert [tuple(layer.weight.shape) for layer in two.deep.linears()] == [(8, 22), (2, 8)]
    assert (two.linear.embeddings.dim, two.embeddings.dim) == (2, 6)


def test_dropout_and_batch_norm_reach_the_mlp():
    torch.manual_seed(0)
    schema = make_schema()
    model = build(DeepFMConfig(dim=3, deep=(8,), dropout=0.5, batch_norm=True), schema)
    batch = draw(schema, 6)
    assert not torch.equal(model(batch), model(batch))
    assert any("running_mean" in name for name in model.state_dict())
    model.eval()
    assert torch.equal(model(batch), model(batch))
