"""FM against its equation, all pairs written out in float64, and a case by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.fm import FM, FMConfig
from dlrm.nn.embedding import materialize
from dlrm.nn.factorization import SecondOrder
from dlrm.schema import Schema

from .float64 import (
    SCHEMAS,
    SEEDS,
    all_pairs,
    assert_logits,
    check_gradients,
    draw_batch,
    draw_parameters,
    every_schema,
    first_order,
    make_schema,
)


def make(schema: Schema, seed: int) -> FM:
    return draw_parameters(FMConfig(dim=3).build(schema), seed)


def equation(model: FM, schema: Schema, batch: Batch) -> list[np.ndarray]:
    return [
        first_order(model.linear, schema, batch, b)
        + all_pairs(model.pairs.vectors, model.embeddings, schema, batch, b)
        for b in range(len(batch))
    ]


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, **SCHEMAS)
def test_linear_time_form_is_the_double_sum(seed, ids, labels):
    schema = make_schema(ids, labels)
    model, batch = make(schema, seed), draw_batch(schema, seed, 5, longest=4)
    assert_logits(model, batch, equation(model, schema, batch))


def test_a_case_by_hand():
    model = materialize(FMConfig(dim=2).build(Schema.one_hot(1, [2, 1])))
    with torch.no_grad():
        assert model.linear.linear.bias is not None
        model.embeddings.get_parameter("weight").copy_(
            torch.tensor([[9.0, 9.0], [1.0, 2.0], [3.0, -1.0]])
        )
        model.linear.embeddings.get_parameter("weight").copy_(torch.tensor([[9.0], [0.5], [0.25]]))
        model.linear.linear.weight.fill_(2)
        model.linear.linear.bias.fill_(100)
        model.pairs.vectors.copy_(torch.tensor([[1.0, 1.0]]))
    # x v = (5, 5): with (1, 2) it makes 15, with (3, -1) 10; (1, 2) with (3, -1) makes 1.
    # logit = 100 + 2 * 5 + 0.5 + 0.25 + 15 + 10 + 1
    batch = Batch(torch.tensor([[5.0]]), torch.tensor([[1, 0]]), torch.zeros(1, 1))
    assert model(batch).tolist() == [[136.75]]


@every_schema
def test_gradients_are_those_of_finite_differences(ids, labels):
    schema = make_schema(ids, labels)
    check_gradients(make(schema, 3), draw_batch(schema, 3, 6))


@pytest.mark.parametrize("labels", [1, 2])
def test_all_three_inputs_of_the_pairs_have_their_gradient(labels):
    torch.manual_seed(0)
    pairs = SecondOrder(2, 3, labels).double()
    torch.nn.init.normal_(pairs.vectors)
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    e = torch.randn(4, 5, 3 * labels, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pairs, (x, e))


def test_starts_without_first_order_weights():
    schema = make_schema("mixed", 2)
    batch = draw_batch(schema, 0, 9)
    model = materialize(FMConfig().build(schema)).double()
    assert model.linear(batch).tolist() == [[0.0, 0.0]] * 9
    assert model(batch).abs().min() > 0


def test_config_builds_it_for_a_schema():
    model = FMConfig(dim=3).build(make_schema())
    assert [tuple(p.shape) for p in model.parameters()] == [(15, 1), (1, 4), (1,), (15, 3), (4, 3)]
    two = FMConfig(dim=3).build(make_schema(labels=2))
    assert [tuple(p.shape) for p in two.parameters()] == [(15, 2), (2, 4), (2,), (15, 6), (4, 6)]
    with pytest.raises(ConfigError, match=r"model\.dim is 0"):
        FMConfig(dim=0)
