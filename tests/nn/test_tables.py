"""Tables as their config says: parts put together, options checked, and all of it learns."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.batch import Batch
from dlrm.errors import ConfigError, IdError
from dlrm.models.dlrm import DLRM, DLRMConfig
from dlrm.models.lr import LRConfig
from dlrm.nn.concat import ConcatEmbeddings
from dlrm.nn.embedding import EmbeddingCollection
from dlrm.nn.tables import TablesConfig
from dlrm.optim import OPTIMIZERS, build
from dlrm.schema import CategoricalFeature, DenseFeature, Schema
from dlrm.training.config import TrainConfig, from_dict, to_dict

from .bags import SEEDS, assert_is, draw, one_hot, train

ROWS = [300, 10, 250, 400]
NAMES = ["C1", "C2", "C3", "C4"]
SCHEMA = Schema(
    dense=(DenseFeature(name="I1"),),
    categorical=tuple(CategoricalFeature(name=n, rows=r) for n, r in zip(NAMES, ROWS, strict=True)),
)
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
    order=st.permutations(range(4)), cut=st.integers(1, 3), samples=st.integers(1, 4), seed=SEEDS
)
def test_parts_serve_their_features(order, cut, samples, seed):
    rows = [9, 8, 7, 6]
    parts = [sorted(order[:cut]), sorted(order[cut:])]
    collections = [EmbeddingCollection([rows[t] for t in part], 3).double() for part in parts]
    joined = ConcatEmbeddings(list(zip(parts, collections, strict=True)))
    assert joined.rows == tuple(rows)

    def vector(t: int, i: int) -> np.ndarray:
        part = 0 if t in parts[0] else 1
        return collections[part].table(parts[part].index(t)).numpy()[i]

    assert_is(joined, vector, samples, seed)


@pytest.mark.parametrize("offsets", [[0, 1, 3], [1, 2, 4], [0, 3, 2, 2, 4]])
def test_offsets_that_do_not_cover_the_ids_are_refused(offsets):
    joined = ConcatEmbeddings(
        [([0], EmbeddingCollection([5], 2)), ([1], EmbeddingCollection([3], 2))]
    )
    with pytest.raises(IdError, match="offsets must rise from 0 to the number of ids, 4"):
        joined(torch.zeros(4, dtype=torch.int64), torch.tensor(offsets))


def test_parts_must_serve_each_feature_once():
    with pytest.raises(ValueError, match=r"features \[0, 0\]"):
        ConcatEmbeddings([([0], EmbeddingCollection([5], 2))] * 2)


@pytest.mark.parametrize("name", COMPRESSED)
def test_large_tables_are_compressed_and_small_ones_are_not(name):
    made = COMPRESSED[name].build(ROWS, 8, NAMES)
    assert isinstance(made, ConcatEmbeddings)
    assert made.rows == tuple(ROWS)
    assert made.names == tuple(NAMES)
    whole = EmbeddingCollection(ROWS, 8, storage=COMPRESSED[name].storage)
    assert made.size_bytes < 0.8 * whole.size_bytes
    plain = [part for part in made.typed_parts() if isinstance(part, EmbeddingCollection)]
    assert [part.names for part in plain] == [("C2",)]
    with pytest.raises(IdError, match=r"C3: id 250 is out of range.*250 rows"):
        made(torch.tensor([[0, 0, 250, 0]]))


@pytest.mark.parametrize("name", COMPRESSED)
def test_bags_of_one_equal_one_hot_and_an_empty_bag_is_zero(name):
    made = COMPRESSED[name].build(ROWS, 8, NAMES)
    ids = one_hot(ROWS, 5, seed=1)
    torch.testing.assert_close(made(ids), made(ids.flatten(), torch.arange(21)))
    assert not made(torch.empty(0, dtype=torch.int64), torch.zeros(9, dtype=torch.int64)).any()
    assert made(torch.empty(0, 4, dtype=torch.int64)).shape == (0, 4, 8)


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_reduces_the_loss_and_touches_only_rows_looked_up(name, optimizer):
    torch.manual_seed(0)
    made = COMPRESSED[name].build(ROWS, 8, NAMES)
    model = DLRM(1, made, bottom=(), top=(16,))
    losses = train(
        model, ROWS, build(optimizer, model.parameters(), 1.0 if optimizer == "sgd" else 0.05)
    )
    assert losses[-1] < 0.97 * losses[0]
    # A table's gradient is as long as the batch, not as the table.
    model.zero_grad()
    ids, offsets = draw(ROWS, 2, 2, seed=3)
    model(Batch(torch.zeros(2, 1), ids, torch.zeros(2), offsets)).sum().backward()
    for module in made.modules():
        if isinstance(module, EmbeddingCollection):
            assert module.weight.grad is not None
            assert module.weight.grad.is_sparse


def test_none_is_one_collection():
    assert isinstance(TablesConfig().build(ROWS, 8, NAMES), EmbeddingCollection)
    everything = TablesConfig(compression="qr", threshold=0).build([300, 40], 8, ["a", "b"])
    assert not isinstance(everything, ConcatEmbeddings)


def test_rows_of_one_number_are_compressed_as_far_as_they_can_be():
    for name, config in COMPRESSED.items():
        made = config.build(ROWS, 1, NAMES)
        assert made(one_hot(ROWS, 2, seed=1)).shape == (2, 4, 1)
        whole = EmbeddingCollection(ROWS, 1, storage=config.storage)
        assert (made.size_bytes < whole.size_bytes) == (name != "mixed_dim")


@pytest.mark.parametrize(
    ("options", "said"),
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
def test_options_without_a_meaning(options, said):
    with pytest.raises(ConfigError, match=said):
        TablesConfig(**options)


def test_what_cannot_apply_names_the_table():
    with pytest.raises(ConfigError, match=r"qr applies to no table: the largest, C4, has 400 rows"):
        TablesConfig(compression="qr", threshold=400).build(ROWS, 8, NAMES)
    with pytest.raises(ConfigError, match=r"C3: a table of 250 rows becomes 2 quotients and 249"):
        TablesConfig(compression="qr", collisions=249).build(ROWS, 8, NAMES)
    with pytest.raises(ConfigError, match=r"C1: mixed_dim leaves its rows at 8 numbers"):
        TablesConfig(compression="mixed_dim", temperature=0.01).build(ROWS, 8, NAMES)
    with pytest.raises(ConfigError, match="the tables of lr have one number a row"):
        LRConfig(tables=COMPRESSED["mixed_dim"])


def test_a_config_survives_json_and_builds():
    config = TrainConfig(model=DLRMConfig(tables=COMPRESSED["qr add"], bottom=(4,), top=(4,)))
    again = from_dict(to_dict(config))
    assert again == config
    model = again.model.build(SCHEMA)
    other = config.model.build(SCHEMA)
    other.load_state_dict(model.state_dict())
    batch = Batch(torch.ones(3, 1), one_hot(ROWS, 3, seed=2), torch.zeros(3))
    assert torch.equal(model(batch), other(batch))
