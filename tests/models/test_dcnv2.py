"""DCN-V2 against its equation in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.models.dcnv2 import DCNV2, DCNV2Config, Structure
from dlrm.nn.embedding import materialize
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
    inputs,
    make_schema,
)

STRUCTURES: tuple[Structure, ...] = ("parallel", "stacked")


def make(
    schema: Schema, seed: int, *, layers: int = 2, rank: int = 0, structure: Structure = "parallel"
) -> DCNV2:
    config = DCNV2Config(dim=3, cross_layers=layers, rank=rank, structure=structure, deep=(6, 5))
    return draw_parameters(config.build(schema), seed)


def matrices(model: DCNV2, rank: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """W_l and b_l of each layer, multiplied out."""
    layers = []
    for layer in model.cross.layers:
        if rank:
            v, u, b = (array(p) for p in layer.parameters())
            layers.append((u @ v, b))
        else:
            w, b = (array(p) for p in layer.parameters())
            layers.append((w, b))
    return layers


def equation(model: DCNV2, schema: Schema, batch: Batch, rank: int) -> list[np.ndarray]:
    logits = []
    for b in range(len(batch)):
        x0 = x = inputs(model.embeddings, schema, batch, b)
        for w_l, b_l in matrices(model, rank):
            x = np.array(
                [x0[i] * (sum(w_l[i, k] * x[k] for k in range(len(x))) + b_l[i]) + x[i]
                 for i in range(len(x))]
            )  # fmt: skip
        if model.last is None:
            logits.append(apply_mlp(model.deep, x))
        else:
            logits.append(array(model.last.weight) @ x + apply_mlp(model.deep, x0))
    return logits


@settings(deadline=None, max_examples=30)
@given(
    seed=SEEDS,
    layers=st.integers(1, 4),
    rank=st.sampled_from([0, 1, 4]),
    structure=st.sampled_from(STRUCTURES),
    **SCHEMAS,
)
def test_is_its_equation(seed, layers, rank, structure, ids, labels):
    schema = make_schema(ids, labels)
    model = make(schema, seed, layers=layers, rank=rank, structure=structure)
    batch = draw_batch(schema, seed, 5)
    assert_logits(model, batch, equation(model, schema, batch, rank))


def test_a_case_by_hand():
    config = DCNV2Config(dim=1, cross_layers=1, structure="stacked", deep=())
    model = materialize(config.build(Schema.one_hot(1, [1])))
    with torch.no_grad():
        model.embeddings.get_parameter("weight").fill_(3)
        w, b = model.cross.layers[0].parameters()
        w.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        b.copy_(torch.tensor([0.5, 1.0]))
        model.deep.linears()[0].weight.copy_(torch.tensor([[1.0, 10.0]]))
        model.deep.linears()[0].bias.fill_(0)
    # x_0 = (2, 3), W x_0 + b = (8.5, -2), x_1 = (17, -6) + (2, 3) = (19, -3)
    batch = Batch(torch.tensor([[2.0]]), torch.tensor([[0]]), torch.zeros(1, 1))
    assert model(batch).tolist() == [[-11]]


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("rank", [0, 2])
def test_gradients_are_those_of_finite_differences(rank, structure, labels):
    schema = make_schema("mixed", labels)
    check_gradients(make(schema, 5, rank=rank, structure=structure), draw_batch(schema, 5, 6))


def test_config_builds_it_for_a_schema():
    config = DCNV2Config(dim=3, cross_layers=2, rank=4, structure="stacked", deep=(8,))
    model = config.build(make_schema())
    shapes = [tuple(p.shape) for p in model.cross.parameters()]
    assert shapes == [(4, 13), (13, 4), (13,)] * 2
    assert model.last is None
