"""MF against its equation in float64, on the two features that it takes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import draw, history_schema
from dlrm.batch import Batch
from dlrm.errors import ConfigError, IdError
from dlrm.models import build
from dlrm.models.mf import MF, MFConfig
from dlrm.schema import Schema

from .float64 import (
    SCHEMAS,
    SEEDS,
    array,
    assert_logits,
    check_gradients,
    draw_batch,
    draw_parameters,
    every_schema,
    make_schema,
    vectors,
)

PAIRS = [("C0", "C1"), ("C2", "C0"), ("C1", "C2")]


def make(schema: Schema, pair: tuple[str, str], seed: int) -> MF:
    return draw_parameters(MFConfig(user=pair[0], item=pair[1], dim=3).build(schema), seed)


def equation(model: MF, schema: Schema, batch: Batch) -> list[np.ndarray]:
    labels, logits = schema.num_labels, []
    for b in range(len(batch)):
        p, q = vectors(model.factors, schema, batch, b)
        products = [
            p_k @ q_k for p_k, q_k in zip(np.split(p, labels), np.split(q, labels), strict=True)
        ]
        logits.append(array(model.bias) + sum(vectors(model.biases, schema, batch, b)) + products)
    return logits


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, pair=st.sampled_from(PAIRS), **SCHEMAS)
def test_is_its_equation(seed, pair, ids, labels):
    schema = make_schema(ids, labels)
    model, batch = make(schema, pair, seed), draw_batch(schema, seed, 5)
    assert model.factors.names == model.biases.names == pair
    assert_logits(model, batch, equation(model, schema, batch))


@every_schema
def test_gradients_are_those_of_finite_differences(ids, labels):
    schema = make_schema(ids, labels)
    check_gradients(make(schema, ("C2", "C0"), 3), draw_batch(schema, 3, 6))


def test_other_columns_are_ignored():
    schema = make_schema()
    model = make(schema, ("C2", "C0"), 1)
    batch = draw_batch(schema, 1, 4)
    ids = batch.ids.clone()
    ids[:, 1] = 10**6
    other = replace(batch, dense=batch.dense * 7, ids=ids)
    assert torch.equal(model(batch), model(other))


def test_an_id_out_of_range_names_its_column():
    schema = make_schema()
    batch = draw_batch(schema, 1, 1)
    batch.ids[0, 2] = 3
    with pytest.raises(IdError, match="C2: id 3 is out of range"):
        make(schema, ("C2", "C0"), 1)(batch)


def test_it_needs_two_ids():
    with pytest.raises(ConfigError, match=r'model.user is "user", .* choose one of: C0, C1, C2'):
        MFConfig().build(make_schema())
    with pytest.raises(ConfigError, match=r'model.item is "C9"'):
        MFConfig(user="C0", item="C9").build(make_schema())
    with pytest.raises(ConfigError, match="there is none"):
        MFConfig().build(make_schema(rows=()))
    with pytest.raises(ConfigError, match='both "C1"'):
        MFConfig(user="C1", item="C1")
    with pytest.raises(ConfigError, match=r"model\.dim is 0"):
        MFConfig(dim=0)


def test_columns_called_user_and_item_are_taken():
    schema = history_schema(labels=("rating", "finished"))
    model = build(MFConfig(dim=3), schema)
    assert isinstance(model, MF)
    assert model.factors.names == ("user", "item")
    assert model.factors.layout.sizes == (300, 120)
    assert model(draw(schema, 4)).shape == (4, 2)
    # Who takes the history for the user has what SVD++ calls implicit feedback: a shared table.
    liked = build(MFConfig(user="history", dim=3), schema)
    assert isinstance(liked, MF)
    assert liked.factors.layout.sizes == (120,)
    assert liked(draw(schema, 4)).shape == (4, 2)
