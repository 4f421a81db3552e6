"""DLRM against its equation, rewritten in plain float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import draw
from dlrm.batch import Batch
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRM, DLRMConfig
from dlrm.nn.embedding import EmbeddingCollection, Layout, materialize
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
    first_order,
    make_schema,
    vectors,
)

INTERACTIONS = (
    {"interaction": "dot"},
    {"interaction": "dot", "self_interaction": True},
    {"interaction": "cat"},
    {"interaction": "cat", "wide": True},
    {"interaction": "cat", "number_vectors": True, "wide": True},
    {"interaction": "dot", "number_vectors": True},
    {"interaction": "sum"},
    {"interaction": "projection", "projection": 2},
)


def make(schema: Schema, seed: int, **options) -> DLRM:
    return draw_parameters(
        DLRMConfig(dim=3, bottom=(6, 5), top=(8,), **options).build(schema), seed
    )


def _of_dense(model: DLRM, dense: np.ndarray) -> list[np.ndarray]:
    if model.bottom is not None:
        return [apply_mlp(model.bottom, dense)]
    assert model.vectors is not None
    steps = array(model.vectors.steps)
    return list(np.maximum(steps[:, 0] + dense[:, None] * steps[:, 1], 0))


def equation(model: DLRM, schema: Schema, batch: Batch, options: dict) -> list[np.ndarray]:
    logits = []
    for b in range(len(batch)):
        every = [
            *_of_dense(model, batch.dense[b].numpy()),
            *vectors(model.embeddings, schema, batch, b),
        ]
        x = every[0]
        match options["interaction"]:
            case "dot":
                itself = options.get("self_interaction", False)
                pairs = [every[i] @ every[j] for i in range(len(every)) for j in range(i + itself)]
                z = np.concatenate([x, pairs])
            case "cat":
                z = np.concatenate(every)
            case "projection":
                p = array(model.interaction.get_parameter("weight")) @ np.array(every)
                z = np.concatenate([x, [v @ p_j for v in every for p_j in p]])
            case _:
                z = np.sum(every, axis=0)
        wide = 0.0 if model.wide is None else first_order(model.wide, schema, batch, b)
        logits.append(apply_mlp(model.top, z) + wide)
    return logits


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, options=st.sampled_from(INTERACTIONS), **SCHEMAS)
def test_is_its_equation(seed, options, ids, labels):
    schema = make_schema(ids, labels)
    model, batch = make(schema, seed, **options), draw_batch(schema, seed, 9)
    assert_logits(model, batch, equation(model, schema, batch, options))


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("options", INTERACTIONS, ids=str)
def test_gradients_are_those_of_finite_differences(options, labels):
    schema = make_schema("mixed", labels)
    check_gradients(make(schema, 3, **options), draw_batch(schema, 4, 5))


def test_config_builds_the_model_of_a_schema():
    model = DLRMConfig(dim=3, bottom=(6,), top=(8, 2)).build(make_schema())
    assert model.bottom is not None
    assert [tuple(layer.weight.shape) for layer in model.bottom.linears()] == [(6, 4), (3, 6)]
    width = 3 + 4 * 3 // 2
    shapes = [tuple(layer.weight.shape) for layer in model.top.linears()]
    assert shapes == [(8, width), (2, 8), (1, 2)]
    assert model.embeddings.names == ("C0", "C1", "C2")


def test_embeddings_can_be_given():
    schema = make_schema()
    tables = EmbeddingCollection(Layout.of(schema), 3)
    assert DLRM(schema, DLRMConfig(dim=3), embeddings=tables).embeddings is tables


@pytest.mark.parametrize("batch_norm", [False, True])
def test_without_dense_features_a_learnt_vector_takes_their_place(batch_norm):
    torch.manual_seed(5)
    schema = make_schema(dense=0)
    config = DLRMConfig(
        dim=3, bottom=(6, 5), top=(8,), dropout=0.5 if batch_norm else 0.0, batch_norm=batch_norm
    )
    model = materialize(config.build(schema)).double()
    assert model.bottom is not None
    (vector,) = model.bottom.linears()
    torch.nn.init.constant_(vector.bias, -0.5)
    batch = draw_batch(schema, 6, 9)
    x = model.bottom(batch.dense)
    assert torch.equal(x, torch.full((9, 3), -0.5, dtype=torch.float64))
    model(batch).sum().backward()
    assert vector.bias.grad is not None
    # No part of it is dead, also below 0.
    assert torch.all(vector.bias.grad != 0)


def test_without_categorical_features_it_is_an_mlp():
    schema = Schema.one_hot(4, [])
    model = materialize(DLRMConfig(dim=3, bottom=(6,), top=(8,)).build(schema))
    batch = draw(schema, 5)
    assert model.bottom is not None
    assert torch.equal(model(batch), model.top(model.bottom(batch.dense)))


def test_a_wrong_interaction_lists_the_choices():
    config = DLRMConfig(interaction="dott")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=r'"dott"; choose one of: dot, cat, sum, projection'):
        config.build(make_schema())
