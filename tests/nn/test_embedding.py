"""The plain collection, and what all embeddings have in common."""

import copy
from dataclasses import replace
from math import sqrt

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from batches import draw, history_schema, lists_of_one, schemas, with_kind
from dlrm.batch import Jagged
from dlrm.errors import ConfigError, IdError
from dlrm.nn.embedding import (
    EmbeddingCollection,
    Layout,
    collections_of,
    embeddings_of,
    materialize,
    parameter_groups,
)
from dlrm.nn.initializer import constant, fresh_rows, normal, pieces
from dlrm.nn.qr import QREmbeddings
from dlrm.ops.storage import Storage
from dlrm.schema import Feature, Schema, Table

from .bags import ROWS, SEEDS, assert_gradients, assert_is, ids, layout, number


def plain(*rows: int, dim: int = 2, storage: Storage = "fp32") -> EmbeddingCollection:
    return materialize(EmbeddingCollection(layout(*rows), dim, storage=storage))


@settings(deadline=None, max_examples=60)
@given(schema=schemas(ROWS), samples=st.integers(1, 5), dim=st.integers(1, 5), seed=SEEDS)
def test_is_rows_of_tables_and_their_sums(schema, samples, dim, seed):
    collection = materialize(EmbeddingCollection(Layout.of(schema), dim)).double()
    assert_is(
        collection, schema, lambda t, i: collection.table(number(collection, t))[i].numpy(),
        samples, seed,
    )  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(schema=schemas(ROWS), seed=SEEDS, data=st.data())
def test_some_features_in_any_order_are_those_of_all(schema, seed, data):
    names = data.draw(st.permutations(schema.feature_names))
    names = names[: data.draw(st.integers(1, len(names)))]
    whole = materialize(EmbeddingCollection(Layout.of(schema), 2))
    some = materialize(EmbeddingCollection(Layout.of(schema, names), 2))
    assert some.names == tuple(names)
    for t, table in enumerate(some.layout.tables):
        some.table(t).copy_(whole.table(number(whole, table.name)))
    batch = draw(schema, 4, seed=seed)
    places = [schema.feature_names.index(name) for name in names]
    assert torch.equal(some(batch), whole(batch)[:, places])
    for name in names:
        if schema.feature(name).is_list:
            ours, theirs = some.sequence(batch, name), whole.sequence(batch, name)
            assert torch.equal(ours.values, theirs.values)
            assert torch.equal(ours.offsets, theirs.offsets)


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, samples=st.integers(0, 5), dim=st.integers(1, 5), seed=SEEDS)
def test_lists_of_one_equal_one_hot(rows, samples, dim, seed):
    schema = Schema.one_hot(0, rows)
    single = materialize(EmbeddingCollection(Layout.of(schema), dim))
    several = EmbeddingCollection(Layout.of(with_kind(schema, "bag")), dim, weight=single.weight)
    batch = draw(schema, samples, seed=seed)
    assert single(batch).shape == (samples, len(rows), dim)
    assert torch.equal(single(batch), several(lists_of_one(batch)))


@settings(deadline=None, max_examples=40)
@given(schema=schemas(ROWS), dim=st.integers(1, 3), seed=SEEDS)
def test_gradients_are_those_of_finite_differences(schema, dim, seed):
    torch.manual_seed(seed)
    assert_gradients(
        materialize(EmbeddingCollection(Layout.of(schema), dim)).double(), schema, seed
    )


@pytest.mark.parametrize("storage", ["fp32", "bf16"])
def test_a_table_of_one_hot_and_list_features_adds_up_both_gradients(storage: Storage):
    schema = history_schema()
    items = materialize(
        EmbeddingCollection(Layout.of(schema, ["item", "history"]), 2, storage=storage)
    )
    batch = draw(schema, 5, seed=1)
    out = items(batch)
    factor = torch.randn_like(out)
    (out * factor).sum().backward()
    items.sequence(batch, "history").values.sum().backward()
    assert items.weight.grad is not None
    assert items.weight.grad.is_sparse
    assert items.weight.grad.dtype == torch.float32
    expected = torch.zeros(items.weight.shape)
    assert batch.lists is not None
    for b in range(5):
        expected[batch.ids[b, 1]] += factor[b, 0]
        first, last = batch.lists.offsets[2 * b : 2 * b + 2]
        for i in batch.lists.values[first:last]:
            expected[i] += factor[b, 1] + 1
    torch.testing.assert_close(items.weight.grad.to_dense(), expected)


def test_gradients_accumulate_over_batches():
    collection = plain(4, 3)
    collection(ids([0, 1])).sum().backward()
    collection(ids([0, 2])).sum().backward()
    assert collection.weight.grad is not None
    grad = collection.weight.grad.to_dense()
    assert grad[:, 0].tolist() == [2, 0, 0, 0, 0, 1, 1]


def test_rows_are_drawn_within_the_bound_of_their_table():
    torch.manual_seed(0)
    collection = plain(10_000, 100, dim=4)
    for t, n in enumerate([10_000, 100]):
        table = collection.table(t)
        assert table.abs().max() <= sqrt(1 / n)
        assert table.abs().max() > 0.9 * sqrt(1 / n)
        assert abs(float(table.mean())) < 0.1 * sqrt(1 / n)


@pytest.mark.parametrize("wrong", [-1, 3])
@pytest.mark.parametrize("kind", ["one_hot", "bag"])
def test_an_id_out_of_range_names_its_feature(wrong, kind):
    schema = with_kind(Schema.one_hot(0, [5, 3]), kind)
    collection = materialize(EmbeddingCollection(Layout.of(schema), 2))
    batch = ids([4, 2], [0, wrong])
    batch = batch if kind == "one_hot" else lists_of_one(batch)
    with pytest.raises(IdError, match=rf"C2: id {wrong} is out of range.*3 rows"):
        collection(batch)
    with pytest.raises(IdError, match=rf"C2: id {wrong} is out of range.*3 rows"):
        collection.layout.check(batch)


def test_an_id_out_of_range_of_a_feature_that_is_not_served_is_no_matter():
    schema = Schema.one_hot(0, [5, 3])
    collection = materialize(EmbeddingCollection(Layout.of(schema, ["C1"]), 2))
    batch = ids([4, 9])
    collection(batch)
    collection.layout.check(batch)


def test_ids_for_another_number_of_features_are_refused():
    with pytest.raises(IdError, match="ids for 3 features, expected 2"):
        plain(5, 3)(ids([0, 0, 0]))


def test_lists_for_another_number_of_features_are_refused():
    schema = with_kind(Schema.one_hot(0, [5, 3]), "bag")
    collection = materialize(EmbeddingCollection(Layout.of(schema), 2))
    with pytest.raises(IdError, match="0 lists for 1 samples, expected 2 a sample"):
        collection(ids([0, 0]))
    with pytest.raises(IdError, match="3 lists for 1 samples, expected 2 a sample"):
        collection(lists_of_one(ids([0, 0, 0])))


@pytest.mark.parametrize("names", [["C1", "C2"], ["C2"], ["C2", "C1"]])
@pytest.mark.parametrize("offsets", [[0, 1, 3], [1, 2, 4], [0, 5, 4], [0, 3, 2]])
def test_offsets_that_do_not_cover_the_ids_are_refused(offsets, names):
    schema = with_kind(Schema.one_hot(0, [5, 3]), "sequence")
    collection = materialize(EmbeddingCollection(Layout.of(schema, names), 2))
    lists = Jagged(torch.zeros(4, dtype=torch.int64), torch.tensor(offsets))
    batch = replace(ids([]), lists=lists)
    for look_up in (collection, lambda wrong: collection.sequence(wrong, "C2")):
        with pytest.raises(IdError, match="offsets must rise from 0 to the number of ids, 4"):
            look_up(batch)


def test_a_sequence_of_what_is_no_list_names_the_lists():
    collection = materialize(EmbeddingCollection(Layout.of(history_schema()), 2))
    batch = draw(history_schema(), 2)
    for name in ("user", "age"):
        with pytest.raises(ConfigError, match=f'"{name}" is no list .*one of: history, words$'):
            collection.sequence(batch, name)
    with pytest.raises(ConfigError, match=r"choose one of: \(none\)"):
        plain(5).sequence(ids([0]), "C1")


def test_features_that_the_schema_lacks_are_named():
    with pytest.raises(ConfigError, match=r'"C9"; choose one of: C1, C2'):
        Layout.of(Schema.one_hot(0, [5, 3]), ["C9"])


def test_without_features_vectors_are_none():
    collection = materialize(EmbeddingCollection(Layout.of(Schema.one_hot(2, [])), 3))
    assert collection(ids([], [])).shape == (2, 0, 3)


def test_no_samples_have_no_vectors():
    schema = history_schema()
    collection = materialize(EmbeddingCollection(Layout.of(schema), 3))
    batch = draw(schema, 2).slice(2, 2)
    assert collection(batch).shape == (0, 5, 3)
    assert collection.sequence(batch, "history").values.shape == (0, 3)
    some = materialize(EmbeddingCollection(Layout.of(schema, ["words", "user"]), 3))
    assert some(batch).shape == (0, 2, 3)


@pytest.mark.parametrize("storage", ["bf16", "bf16_nearest", "split"])
def test_tables_in_bfloat16_give_float32_and_take_its_gradients(storage):
    torch.manual_seed(3)
    full = plain(50, 7, dim=8)
    torch.manual_seed(3)
    half = plain(50, 7, dim=8, storage=storage)
    assert half.weight.dtype == torch.bfloat16
    assert torch.equal(half.weight, full.weight.bfloat16())
    batch = ids([0, 6], [49, 0], [0, 1])
    bags = Layout.of(with_kind(Schema.one_hot(0, [50, 7]), "bag"))
    several = EmbeddingCollection(bags, 8, storage=storage, weight=half.weight)
    for collection, samples in (
        (half, batch),
        (copy.deepcopy(half), batch),
        (several, lists_of_one(batch)),
    ):
        collection.weight.grad = None
        out = collection(samples)
        assert out.dtype == torch.float32
        rows = batch.ids + torch.tensor([0, 50])
        assert torch.equal(out, collection.weight.detach().float()[rows])
        (out * 1.001).sum().backward()
        assert collection.weight.grad is not None
        # 1.001 in bfloat16 would be 1.
        assert torch.equal(collection.weight.grad._values(), torch.full((6, 8), 1.001))


@pytest.mark.parametrize("initializer", [normal(2.0), fresh_rows(layout(4))])
@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (40, 3), (999, 5), (3000, 1), (31, 16)])
def test_pieces_draw_the_numbers_that_are_drawn_at_once(initializer, rows, dim, monkeypatch):
    def table() -> torch.Tensor:
        torch.manual_seed(1)
        collection = EmbeddingCollection(layout(rows), dim, initializer=initializer)
        return materialize(collection).table(0)

    whole = table()
    monkeypatch.setattr("dlrm.nn.initializer.PIECE_NUMBERS", 64)
    assert rows * dim < 200 or len(list(pieces(rows, dim))) > 1
    assert table().equal(whole)


def test_fresh_tables_take_no_memory_and_draw_nothing():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    collection = EmbeddingCollection(layout(10**12, 3), 64)
    assert collection.weight.is_meta
    assert not collection.materialized
    assert torch.rand(1) == expected
    with pytest.raises(ConfigError, match="no memory yet"):
        collection(ids([0, 0]))


def test_what_tables_start_with_can_change_before_and_after_they_have_memory():
    early, late = EmbeddingCollection(layout(3), 2), plain(3)
    early.start_with(constant(2.0))
    materialize(early)
    late.start_with(constant(2.0))
    for collection in (early, late):
        assert torch.equal(collection.weight.detach(), torch.full((3, 2), 2.0))
        collection.start_at_zero()
        assert not collection.weight.any()


def test_given_rows_are_taken_as_they_are():
    weight = torch.randn(5, 2)
    collection = EmbeddingCollection(layout(3, 2), 2, weight=weight)
    assert collection.materialized
    assert collection.weight.data_ptr() == weight.data_ptr()
    materialize(collection)
    assert torch.equal(collection.table(1), weight[3:])


def test_a_model_lists_its_embeddings_and_collections_and_groups_their_parameters():
    own = plain(5, storage="bf16")
    compressed = materialize(QREmbeddings(layout(100), 4))
    model = nn.Sequential(own, nn.Linear(3, 2), compressed)
    assert embeddings_of(model) == [own, compressed]
    assert collections_of(model) == [own, compressed.quotients, compressed.remainders]
    dense, *tables = parameter_groups(model)
    assert dense == {"params": [model[1].weight, model[1].bias], "sparse": False}
    assert [(group["storage"], group["sparse"]) for group in tables] == [
        ("bf16", True), ("fp32", True), ("fp32", True),
    ]  # fmt: skip
    weights = [own.weight, *compressed.parameters()]
    assert all(group["params"][0] is weight for group, weight in zip(tables, weights, strict=True))
    assert [group["sparse"] for group in parameter_groups(own)] == [True]


def test_features_of_one_table_have_it_once():
    schema = Schema(
        dense=(),
        tables=(Table(name="T", num_embeddings=9), Table(name="U", num_embeddings=2)),
        features=tuple(Feature(name=f"C{i}", table="T") for i in range(3)),
    )
    collection = materialize(EmbeddingCollection(Layout.of(schema), 2))
    assert collection.layout.sizes == (9,)
    assert collection.size_bytes == 9 * 2 * 4
    out = collection(ids([4, 4, 5]))[0]
    assert torch.equal(out[0], out[1])
    assert not torch.equal(out[0], out[2])
