"""DCN against its equation, layer after layer in float64, and a case by hand."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.models import another, build
from dlrm.models.dcn import DCN, DCNConfig
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.embedding import materialize
from dlrm.nn.tables import TablesConfig
from dlrm.schema import Schema

from .float64 import (
    SCHEMAS,
    SEEDS,
    apply_mlp,
    array,
    assert_logits,
    check_gradients,
    draw_batch,
    draw_parameters,
    every_schema,
    inputs,
    make_schema,
)


def make(schema: Schema, cross_layers: int, seed: int) -> DCN:
    config = DCNConfig(dim=3, cross_layers=cross_layers, deep=(6, 5))
    return draw_parameters(config.build(schema), seed)


def equation(model: DCN, schema: Schema, batch: Batch) -> list[np.ndarray]:
    weight, bias = array(model.cross.weight), array(model.cross.bias)
    logits = []
    for b in range(len(batch)):
        x0 = x = inputs(model.embeddings, schema, batch, b)
        for w_l, b_l in zip(weight, bias, strict=True):
            x = x0 * (w_l @ x) + b_l + x
        logits.append(array(model.last.weight) @ x + apply_mlp(model.deep, x0))
    return logits


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, layers=st.integers(1, 6), samples=st.integers(1, 7), **SCHEMAS)
def test_is_its_equation(seed, layers, samples, ids, labels):
    schema = make_schema(ids, labels)
    model, batch = make(schema, layers, seed), draw_batch(schema, seed, samples)
    assert_logits(model, batch, equation(model, schema, batch))


def test_a_case_by_hand():
    # x_0 = (2, 1): a dense feature, and the embedding of dimension 1 of the only id.
    model = materialize(DCNConfig(dim=1, cross_layers=2, deep=()).build(Schema.one_hot(1, [1])))
    with torch.no_grad():
        model.embeddings.get_parameter("weight").fill_(1)
        model.cross.weight.copy_(torch.tensor([[1.0, -1.0], [0.5, 2.0]]))
        model.cross.bias.copy_(torch.tensor([[1.0, 0.0], [0.0, -3.0]]))
        model.last.weight.copy_(torch.tensor([[10.0, 1.0]]))
        model.deep.linears()[0].weight.copy_(torch.tensor([[0.25, 0.5]]))
        model.deep.linears()[0].bias.fill_(7)
    # x_1 = (2, 1) (2 - 1) + (1, 0) + (2, 1) = (5, 2)
    # x_2 = (2, 1) (2.5 + 4) + (0, -3) + (5, 2) = (18, 5.5)
    # logit = 180 + 5.5 + (0.5 + 0.5 + 7)
    batch = Batch(torch.tensor([[2.0]]), torch.tensor([[0]]), torch.zeros(1, 1))
    assert model(batch).tolist() == [[193.5]]


@every_schema
def test_gradients_are_those_of_finite_differences(ids, labels):
    schema = make_schema(ids, labels)
    check_gradients(make(schema, 3, seed=5), draw_batch(schema, 5, 6))


def test_config_builds_it_for_a_schema():
    model = build(DCNConfig(dim=3, cross_layers=2, deep=(8,)), make_schema(labels=2))
    assert isinstance(model, DCN)
    assert model.cross.weight.shape == (2, 13)
    assert [tuple(layer.weight.shape) for layer in model.deep.linears()] == [(8, 13), (2, 8)]
    # Rows start small for any size of table.
    assert float(model.embeddings.get_parameter("weight").detach().abs().max()) < 0.1


def test_taken_into_a_recipe_it_keeps_the_sizes_but_starts_from_its_own_rows():
    config = another(DLRMConfig(dim=8, top=(32, 16)), "dcn")
    assert config == DCNConfig(dim=8, deep=(32, 16))
    chosen = TablesConfig(storage="bf16")
    assert another(DLRMConfig(tables=chosen), "dcn").tables == chosen
