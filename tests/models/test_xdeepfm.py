"""xDeepFM against its equation, all pairs written out in float64, and a case by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import draw
from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models import build
from dlrm.models.xdeepfm import XDeepFM, XDeepFMConfig
from dlrm.nn.embedding import materialize
from dlrm.schema import Schema

from .float64 import (
    DIM,
    SCHEMAS,
    SEEDS,
    apply_mlp,
    array,
    assert_logits,
    check_gradients,
    draw_batch,
    draw_parameters,
    every_schema,
    first_order,
    inputs,
    make_schema,
    vectors,
)


def make(schema: Schema, cin: tuple[int, ...], seed: int) -> XDeepFM:
    return draw_parameters(XDeepFMConfig(dim=DIM, cin=cin, deep=(6, 5)).build(schema), seed)


def equation(model: XDeepFM, schema: Schema, batch: Batch) -> list[np.ndarray]:
    weights = [*map(array, model.cin.weights), array(model.cin.last.weight)]
    logits = []
    for b in range(len(batch)):
        x0 = x = vectors(model.embeddings, schema, batch, b)
        sums = []
        for weight in weights:
            w = weight.reshape(len(weight), len(x0), len(x))
            x = [
                sum((w[h, j, i] * x[i] * x0[j] for i in range(len(x)) for j in range(len(x0))),
                    np.zeros(DIM))
                for h in range(len(weight))
            ]  # fmt: skip
            sums += [vector.sum() for vector in x]
        logits.append(
            first_order(model.linear, schema, batch, b)
            + array(model.last.weight) @ np.array(sums)
            + apply_mlp(model.deep, inputs(model.embeddings, schema, batch, b))
        )
    return logits


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, cin=st.lists(st.integers(1, 4), min_size=1, max_size=3), **SCHEMAS)
def test_is_its_equation(seed, cin, ids, labels):
    schema = make_schema(ids, labels)
    model, batch = make(schema, tuple(cin), seed), draw_batch(schema, seed, 5)
    assert_logits(model, batch, equation(model, schema, batch))


def test_a_case_by_hand():
    # Two tables of one row: e_1 = (1, 2), e_2 = (3, -1).
    config = XDeepFMConfig(dim=2, cin=(1, 1), deep=())
    model = materialize(config.build(Schema.one_hot(1, [1, 1])))
    with torch.no_grad():
        model.embeddings.get_parameter("weight").copy_(torch.tensor([[1.0, 2.0], [3.0, -1.0]]))
        model.linear.embeddings.get_parameter("weight").copy_(torch.tensor([[0.5], [0.25]]))
        model.linear.linear.weight.fill_(2)
        model.cin.weights[0].copy_(torch.tensor([[1.0, 2.0, 0.0, 1.0]]))
        model.cin.last.weight.copy_(torch.tensor([[1.0, -1.0]]))
        model.last.weight.copy_(torch.tensor([[1.0, 10.0]]))
        model.deep.linears()[0].weight.fill_(0)
        model.deep.linears()[0].bias.fill_(100)
    # X^1 = e_1 * e_1 + 2 e_1 * e_2 + e_2 * e_2 = (1, 4) + (6, -4) + (9, 1) = (16, 1)
    # X^2 = X^1 * e_1 - X^1 * e_2 = (16, 2) - (48, -1) = (-32, 3)
    # logit = 2 * 5 + 0.5 + 0.25 + (17 - 290) + 100
    batch = Batch(torch.tensor([[5.0]]), torch.tensor([[0, 0]]), torch.zeros(1, 1))
    assert model(batch).tolist() == [[-162.25]]


@every_schema
@pytest.mark.parametrize("cin", [(4,), (2, 3, 2)])
def test_gradients_are_those_of_finite_differences(cin, ids, labels):
    schema = make_schema(ids, labels)
    check_gradients(make(schema, cin, seed=5), draw_batch(schema, 5, 6))


def test_config_builds_it_for_a_schema():
    model = XDeepFMConfig(dim=3, cin=(5, 4), deep=(8,)).build(make_schema())
    assert model.embeddings.layout.sizes == (7, 5, 3)
    assert model.linear.embeddings.dim == 1
    assert [tuple(p.shape) for p in model.cin.parameters()] == [(5, 9), (4, 15)]
    assert model.last.weight.shape == (1, 9)


def test_one_categorical_feature_is_enough_and_none_is_not():
    schema = make_schema(rows=(7,))
    assert build(XDeepFMConfig(dim=3, deep=(8,)), schema)(draw(schema, 2)).isfinite().all()
    with pytest.raises(ConfigError, match="categorical features, and the data have none"):
        XDeepFMConfig().build(make_schema(rows=()))
