"""Tables that are trained for codes: rounded forwards as `quantize` does, backwards not at all."""

import copy
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import draw, history_schema, schemas
from dlrm.errors import ConfigError, IdError
from dlrm.models import MODELS, another
from dlrm.models import build as build_model
from dlrm.models.dlrm import DLRM, DLRMConfig
from dlrm.nn.codes import Codes
from dlrm.nn.embedding import EmbeddingCollection, Layout, materialize, parameter_groups
from dlrm.nn.initializer import constant, normal
from dlrm.nn.qat import QATEmbeddings
from dlrm.nn.quantized import QuantizedCollection, quantize
from dlrm.nn.tables import TablesConfig
from dlrm.optim import build
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig, from_dict, to_dict
from dlrm.training.loss import bce

from .bags import ROWS, SEEDS, ids, labelled, layout, train

CODES = get_args(Codes)


def both(served: Layout, dim: int, to: Codes, seed=0) -> tuple[EmbeddingCollection, QATEmbeddings]:
    """Plain tables, and those for codes of the same numbers."""
    torch.manual_seed(seed)
    plain = materialize(EmbeddingCollection(served, dim, initializer=normal(0.3)))
    qat = materialize(QATEmbeddings(served, dim, codes=to))
    qat.load_state_dict({"tables.weight": plain.weight})
    return plain, qat


@settings(deadline=None, max_examples=40)
@given(
    schema=schemas(ROWS),
    dim=st.integers(8, 19),
    to=st.sampled_from(CODES),
    samples=st.integers(1, 5),
    seed=SEEDS,
)
def test_forwards_it_is_the_quantised_tables_and_backwards_the_plain_ones(
    schema, dim, to, samples, seed
):
    plain, qat = both(Layout.of(schema), dim, to, seed)
    small = quantize(plain, to)
    assert isinstance(small, QuantizedCollection)
    batch = draw(schema, samples, seed=seed)
    blocks = plain.layout.blocks(batch)
    weights = [torch.rand(block.ids.shape) for block in blocks]
    with torch.no_grad():
        torch.testing.assert_close(qat(batch), small(batch))
        for block, factors in zip(blocks, weights, strict=True):
            torch.testing.assert_close(qat.pooled(block, factors), small.pooled(block, factors))
        for feature in schema.list_features:
            ours, theirs = (embeddings.sequence(batch, feature.name) for embeddings in (qat, small))
            torch.testing.assert_close(ours.values, theirs.values)
    for t in range(len(plain.layout.tables)):
        assert torch.equal(qat.table(t), small.table(t))
    slope = torch.randn(samples, len(schema.features), dim)
    grads = []
    for tables in (plain, qat):
        (weight,) = tables.parameters()
        (tables(batch) * slope).sum().backward()
        for block, factors in zip(blocks, weights, strict=True):
            tables.pooled(block, factors).sum().backward()
        for feature in schema.list_features:
            tables.sequence(batch, feature.name).values.sum().backward()
        assert weight.grad is not None
        assert weight.grad.is_sparse
        grads.append(weight.grad.to_dense())
    torch.testing.assert_close(grads[1], grads[0])


def model_with(rows: list[int], tables: TablesConfig) -> tuple[Schema, DLRM]:
    schema = Schema.one_hot(1, rows)
    model = build_model(DLRMConfig(dim=16, bottom=(), top=(16,), tables=tables), schema)
    assert isinstance(model, DLRM)
    return schema, model


@pytest.mark.parametrize("to", CODES)
def test_quantising_afterwards_changes_no_vector(to: Codes):
    torch.manual_seed(1)
    schema, model = model_with([300, 10, 250], TablesConfig(qat=to, init_std=0.1))
    before = train(model, schema, build("adagrad", parameter_groups(model), 0.05))
    assert before[-1] < 0.97 * before[0]
    small = quantize(model, to)
    assert isinstance(small.embeddings, QuantizedCollection)
    assert small.embeddings.size_bytes < 0.4 * model.embeddings.size_bytes
    batch = draw(schema, 50, seed=2)
    with torch.no_grad():
        torch.testing.assert_close(small(batch), model(batch), atol=1e-5, rtol=1e-5)
    # Copies and saved ones are the same.
    again = copy.deepcopy(model)
    assert torch.equal(again(batch), model(batch))
    _, fresh = model_with([300, 10, 250], TablesConfig(qat=to))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(batch), model(batch))


def test_training_for_codes_beats_rounding_afterwards():
    losses = {}
    for tables in (TablesConfig(init_std=0.1), TablesConfig(init_std=0.1, qat="int2")):
        torch.manual_seed(3)
        schema, model = model_with([40, 30], tables)
        train(model, schema, build("adagrad", parameter_groups(model), 0.05))
        batch = labelled(schema)
        with torch.no_grad():
            losses[tables.qat] = float(bce(quantize(model, "int2")(batch), batch.labels))
    assert losses["int2"] < losses["none"]


def test_small_updates_add_up_until_a_code_changes():
    qat = materialize(QATEmbeddings(layout(1), 16, codes="int2"))
    qat.tables.fill(lambda values, t, first: values.copy_(torch.linspace(0, 3, 16)))
    batch = ids([0])
    before, moved = qat(batch).detach(), []
    for _ in range(30):
        qat.zero_grad()
        qat(batch)[0, 0, 8].backward()
        build("sgd", parameter_groups(qat), 0.01).step()
        moved.append(not torch.equal(qat(batch).detach(), before))
    assert not moved[0]
    assert moved[-1]


def test_the_seam_is_kept():
    qat = materialize(QATEmbeddings(layout(5, 3), 16, codes="int8"))
    with pytest.raises(IdError, match=r"C2: id 3 is out of range.*3 rows"):
        qat(ids([0, 3]))
    qat.tables.fill(constant(0.25))
    assert torch.equal(qat.table(1), torch.full((3, 16), 0.25))
    qat.start_at_zero()
    assert not qat(ids([0, 1])).any()
    schema = history_schema()
    lists = materialize(QATEmbeddings(Layout.of(schema), 16, codes="int8"))
    empty = draw(schema, 2, longest=0)
    assert not lists(empty)[:, [0, 2]].any()
    assert lists(empty.slice(0, 0)).shape == (0, 5, 16)


def test_only_their_own_codes_can_be_made_of_them():
    qat = materialize(QATEmbeddings(layout(5, 3), 16, codes="int8"))
    with pytest.raises(ConfigError, match="C1: its table was trained for int8 codes, not for int4"):
        quantize(qat, "int4")


def test_rows_that_would_grow_stay_plain():
    schema = Schema.one_hot(0, [50])
    for dim, config in (
        (1, TablesConfig(qat="int2")),
        (2, TablesConfig(qat="int8")),
        (8, TablesConfig(qat="int8", storage="bf16")),
    ):
        assert isinstance(config.build(schema, dim), EmbeddingCollection)
    fewer = TablesConfig(qat="int4", storage="bf16").build(schema, 8)
    assert isinstance(fewer, QATEmbeddings)
    with pytest.raises(ConfigError, match=r"tables\.qat is int8, but says nothing to .* qr"):
        TablesConfig(qat="int8", compression="qr")


@pytest.mark.parametrize("name", MODELS)
def test_every_model_takes_them(name):
    schema = history_schema(1)
    config = another(DLRMConfig(dim=16, bottom=(8,), top=(8,)), name)
    config = TrainConfig(model=replace(config, tables=TablesConfig(qat="int4")))
    assert from_dict(to_dict(config)) == config
    model = build_model(config.model, schema)
    model(draw(schema, 4, seed=1)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
