"""Tables as their config says: parts put together, options checked, and all of it learns."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import draw, history_schema, lists_of_one, schemas, with_kind
from dlrm.batch import Batch, Jagged
from dlrm.errors import ConfigError, IdError
from dlrm.models import build as build_model
from dlrm.models.dlrm import DLRMConfig
from dlrm.models.lr import LRConfig
from dlrm.nn.concat import ConcatEmbeddings
from dlrm.nn.embedding import EmbeddingCollection, Layout, materialize, parameter_groups
from dlrm.nn.hashed import HashedEmbeddings
from dlrm.nn.qr import QREmbeddings
from dlrm.nn.tables import TablesConfig
from dlrm.optim import OPTIMIZERS, build
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig, from_dict, to_dict

from .bags import SEEDS, assert_is, ids, number, train

SCHEMA = Schema.one_hot(1, [300, 10, 250, 400])
MIXED = history_schema(1, rows=(300, 250, 10))
COMPRESSED = {
    "qr": TablesConfig(compression="qr"),
    "qr add": TablesConfig(compression="qr", operation="add", collisions=16),
    "qr concat": TablesConfig(compression="qr", operation="concat", storage="split"),
    "mixed_dim": TablesConfig(compression="mixed_dim"),
    "hash": TablesConfig(compression="hash"),
    "hash weighted": TablesConfig(compression="hash", weighted=True, storage="bf16"),
}


@settings(deadline=None, max_examples=40)
@given(
    schema=schemas(st.lists(st.integers(1, 9), min_size=2, max_size=4)),
    samples=st.integers(1, 4),
    seed=SEEDS,
    data=st.data(),
)
def test_parts_serve_their_features(schema, samples, seed, data):
    names = data.draw(st.permutations(schema.feature_names))
    cut = data.draw(st.integers(1, len(names) - 1))
    parts = [
        materialize(EmbeddingCollection(Layout.of(schema, part), 3)).double()
        for part in (names[:cut], names[cut:])
    ]
    joined = ConcatEmbeddings(Layout.of(schema), parts)
    assert joined.names == schema.feature_names
    # Features of one table that are in different parts have rows of their own there.
    for part in parts[1:]:
        for t, table in enumerate(part.layout.tables):
            if table in parts[0].layout.tables:
                part.table(t).copy_(parts[0].table(number(parts[0], table.name)))

    def vector(table: str, i: int) -> np.ndarray:
        part = next(p for p in parts if table in [entry.name for entry in p.layout.tables])
        return part.table(number(part, table)).numpy()[i]

    assert_is(joined, schema, vector, samples, seed)


@pytest.mark.parametrize("offsets", [[0, 1, 3], [1, 2, 4], [0, 5, 4], [0, 3, 2]])
def test_offsets_that_do_not_cover_the_ids_are_refused(offsets):
    schema = with_kind(Schema.one_hot(0, [5, 3]), "bag")
    parts = [
        materialize(EmbeddingCollection(Layout.of(schema, [name]), 2)) for name in ("C1", "C2")
    ]
    joined = ConcatEmbeddings(Layout.of(schema), parts)
    lists = Jagged(torch.zeros(4, dtype=torch.int64), torch.tensor(offsets))
    batch = Batch(torch.empty(1, 0), torch.empty(1, 0).long(), torch.zeros(1, 1), lists)
    with pytest.raises(IdError, match="offsets must rise from 0 to the number of ids, 4"):
        joined(batch)


def test_parts_must_serve_each_feature_once():
    schema = Schema.one_hot(0, [5])
    part = EmbeddingCollection(Layout.of(schema), 2)
    with pytest.raises(ValueError, match=r"serve \['C1', 'C1'\]"):
        ConcatEmbeddings(Layout.of(schema), [part] * 2)


@pytest.mark.parametrize("name", COMPRESSED)
def test_large_tables_are_compressed_and_small_ones_are_not(name):
    embeddings = materialize(COMPRESSED[name].build(SCHEMA, 8))
    assert isinstance(embeddings, ConcatEmbeddings)
    assert embeddings.names == SCHEMA.feature_names
    whole = EmbeddingCollection(Layout.of(SCHEMA), 8, storage=COMPRESSED[name].storage)
    assert embeddings.size_bytes < 0.8 * whole.size_bytes
    plain = [part for part in embeddings.typed_parts() if isinstance(part, EmbeddingCollection)]
    assert [part.names for part in plain] == [("C2",)]
    with pytest.raises(IdError, match=r"C3: id 250 is out of range.*250 rows"):
        embeddings(ids([0, 0, 250, 0]))


@pytest.mark.parametrize("name", COMPRESSED)
def test_lists_of_one_equal_one_hot_and_an_empty_list_is_zero(name):
    several = with_kind(SCHEMA, "bag")
    embeddings, bags = (materialize(COMPRESSED[name].build(s, 8)) for s in (SCHEMA, several))
    bags.load_state_dict(embeddings.state_dict())
    batch = draw(SCHEMA, 5, seed=1)
    torch.testing.assert_close(embeddings(batch), bags(lists_of_one(batch)))
    assert not bags(draw(several, 2, longest=0)).any()
    assert embeddings(batch.slice(0, 0)).shape == (0, 4, 8)
    assert bags(draw(several, 2).slice(0, 0)).shape == (0, 4, 8)


@pytest.mark.parametrize("name", COMPRESSED)
def test_the_sum_of_a_sequence_is_its_pooled_vector(name):
    torch.manual_seed(1)
    embeddings = materialize(COMPRESSED[name].build(MIXED, 8))
    batch = draw(MIXED, 7, seed=2)
    pooled = embeddings(batch)
    for feature in MIXED.list_features:
        values, offsets = embeddings.sequence(batch, feature.name)
        sums = [values[a:b].sum(0) for a, b in itertools.pairwise(offsets)]
        torch.testing.assert_close(
            torch.stack(sums), pooled[:, MIXED.features.index(feature)], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("name", COMPRESSED)
def test_features_of_one_table_have_the_same_vectors(name):
    torch.manual_seed(1)
    embeddings = materialize(COMPRESSED[name].build(MIXED, 8))
    batch = draw(MIXED, 7, seed=2)
    # The history of each sample is its item.
    item = batch.ids[:, 1]
    lists = Jagged(item, torch.arange(8).repeat_interleave(2)[1:])
    out = embeddings(Batch(batch.dense, batch.ids, batch.labels, lists))
    torch.testing.assert_close(out[:, 0], out[:, 3])
    assert out[:, 3].any()


@pytest.mark.parametrize("schema", [SCHEMA, MIXED], ids=["one-hot", "mixed"])
@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_reduces_the_loss_and_touches_only_rows_looked_up(name, optimizer, schema):
    torch.manual_seed(0)
    config = DLRMConfig(dim=8, bottom=(), top=(16,), tables=COMPRESSED[name])
    model = build_model(config, schema)
    groups = parameter_groups(model)
    losses = train(model, schema, build(optimizer, groups, 2.0 if optimizer == "sgd" else 0.05))
    assert losses[-1] < 0.97 * losses[0]
    # A table's gradient is as long as the batch, not as the table.
    model.zero_grad()
    model(draw(schema, 2, longest=2, seed=3)).sum().backward()
    for module in model.modules():
        if isinstance(module, EmbeddingCollection):
            assert module.weight.grad is not None
            assert module.weight.grad.is_sparse


def test_none_is_one_collection():
    assert isinstance(TablesConfig().build(SCHEMA, 8), EmbeddingCollection)
    everything = TablesConfig(compression="qr", threshold=0)
    assert isinstance(everything.build(Schema.one_hot(0, [300, 40]), 8), QREmbeddings)


def test_rows_of_one_number_are_compressed_as_far_as_they_can_be():
    for name, config in COMPRESSED.items():
        embeddings = materialize(config.build(SCHEMA, 1))
        assert embeddings(draw(SCHEMA, 2)).shape == (2, 4, 1)
        whole = EmbeddingCollection(Layout.of(SCHEMA), 1, storage=config.storage)
        assert (embeddings.size_bytes < whole.size_bytes) == (name != "mixed_dim")


@pytest.mark.parametrize("labels", [1, 2, 3])
@pytest.mark.parametrize("name", COMPRESSED)
def test_first_order_weights_are_compressed_for_any_number_of_labels(name, labels):
    schema = Schema.one_hot(1, [300, 10], labels=tuple("abc"[:labels]))
    weights = materialize(COMPRESSED[name].build_first_order(schema))
    weights.start_at_zero()
    assert weights(draw(schema, 2)).shape == (2, 2, labels)
    assert not weights(draw(schema, 2)).any()
    kind = {"qr": QREmbeddings, "ha": HashedEmbeddings, "mi": EmbeddingCollection}[name[:2]]
    parts = weights.typed_parts() if isinstance(weights, ConcatEmbeddings) else [weights]
    assert any(isinstance(part, kind) for part in parts)
    small = Schema.one_hot(1, [10], labels=schema.labels)
    assert isinstance(COMPRESSED[name].build_first_order(small), EmbeddingCollection)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": "qr", "collisions": 1}, r"tables\.collisions is 1: at least 2"),
        ({"compression": "hash", "hashes": 0}, r"tables\.hashes is 0"),
        ({"compression": "mixed_dim", "temperature": 0.0}, r"tables\.temperature is 0\.0"),
        ({"compression": "qr", "threshold": -1}, r"tables\.threshold is -1"),
        ({"collisions": 8}, r"tables\.collisions is 8, but says nothing to .*none.*qr and hash"),
        ({"compression": "qr", "hashes": 3}, r"tables\.hashes is 3, but says nothing to .*qr"),
        (
            {"compression": "hash", "operation": "add"},
            r"tables\.operation is add, but says nothing",
        ),
    ],
)
def test_options_without_a_meaning(options, message):
    with pytest.raises(ConfigError, match=message):
        TablesConfig(**options)


def test_what_cannot_apply_names_the_table():
    with pytest.raises(ConfigError, match=r"qr applies to no table: the largest, C4, has 400 rows"):
        TablesConfig(compression="qr", threshold=400).build(SCHEMA, 8)
    with pytest.raises(ConfigError, match=r"C3: a table of 250 rows becomes 2 quotients and 249"):
        TablesConfig(compression="qr", collisions=249).build(SCHEMA, 8)
    with pytest.raises(ConfigError, match=r"C1: mixed_dim leaves its rows at 8 numbers"):
        TablesConfig(compression="mixed_dim", temperature=0.01).build(SCHEMA, 8)
    with pytest.raises(ConfigError, match="the tables of lr have one number a row"):
        LRConfig(tables=COMPRESSED["mixed_dim"])


def test_a_config_survives_json_and_builds():
    config = TrainConfig(model=DLRMConfig(tables=COMPRESSED["qr add"], bottom=(4,), top=(4,)))
    again = from_dict(to_dict(config))
    assert again == config
    model, other = (build_model(whole.model, SCHEMA) for whole in (again, config))
    other.load_state_dict(model.state_dict())
    batch = draw(SCHEMA, 3, seed=2)
    assert torch.equal(model(batch), other(batch))
