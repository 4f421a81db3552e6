"""Quotient-remainder tables against their definition, rewritten in plain float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import draw, history_schema, lists_of_one, schemas, with_kind
from dlrm.errors import ConfigError, IdError
from dlrm.models import build as build_model
from dlrm.models.lr import LR, LRConfig
from dlrm.nn.embedding import (
    Collection,
    EmbeddingCollection,
    Layout,
    materialize,
    parameter_groups,
)
from dlrm.nn.initializer import normal
from dlrm.nn.qr import Operation, QREmbeddings
from dlrm.nn.tables import TablesConfig
from dlrm.optim import OPTIMIZERS, build
from dlrm.schema import Schema

from .bags import LARGE, SEEDS, assert_gradients, assert_is, ids, layout, number, sums, train

OPERATIONS: list[Operation] = ["mult", "add", "concat"]


def doubles(schema: Schema, dim, operation, collisions, **options) -> QREmbeddings:
    qr = QREmbeddings(Layout.of(schema), dim, operation=operation, collisions=collisions, **options)
    return materialize(qr).double()


def vector_of(qr: QREmbeddings):
    combine = {
        "mult": np.multiply,
        "add": np.add,
        "concat": lambda q, r: np.concatenate([q, r]),
    }[qr.operation]

    def vector(table: str, i: int) -> np.ndarray:
        t = number(qr, table)
        q, r = qr.quotients.table(t).numpy(), qr.remainders.table(t).numpy()
        return combine(q[i // qr.collisions], r[i % qr.collisions])

    return vector


@settings(deadline=None, max_examples=40)
@given(
    schema=schemas(LARGE),
    samples=st.integers(1, 5),
    half=st.integers(1, 3),
    operation=st.sampled_from(OPERATIONS),
    collisions=st.integers(2, 6),
    seed=SEEDS,
)
def test_is_its_definition(schema, samples, half, operation, collisions, seed):
    torch.manual_seed(seed)
    qr = doubles(schema, 2 * half, operation, collisions)
    assert_is(qr, schema, vector_of(qr), samples, seed)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradients_are_those_of_finite_differences(operation):
    torch.manual_seed(2)
    schema = history_schema(rows=(13, 30, 12))
    assert_gradients(doubles(schema, 4, operation, 3), schema, seed=1)


def test_the_originals_product_is_of_the_sums_of_a_bag():
    torch.manual_seed(3)
    schema = with_kind(Schema.one_hot(0, [20, 30]), "bag")
    qr = doubles(schema, 3, "mult", 4, product="bag")
    batch = draw(schema, 6, seed=4)

    def part(tables: Collection, row):
        return sums(
            schema, qr.names, 3, lambda t, i: tables.table(number(qr, t)).numpy()[row(i)], batch
        )

    expected = part(qr.quotients, lambda i: i // 4) * part(qr.remainders, lambda i: i % 4)
    np.testing.assert_allclose(qr(batch).detach().numpy(), expected, rtol=1e-12)


def test_quotients_of_large_ids_are_exact():
    # In float32 the quotient of the last id would round up, out of its table.
    rows = 3 * (2**24 + 2)
    qr = materialize(QREmbeddings(layout(rows), 1, operation="add", collisions=3))
    batch = ids([2**24 + 1], [rows - 1], [rows - 3])
    out = qr(batch).detach()
    q, r = qr.quotients.table(0), qr.remainders.table(0)
    expected = q[batch.ids[:, 0] // 3] + r[batch.ids[:, 0] % 3]
    assert torch.equal(out[:, 0], expected)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("init_std", [None, 0.25])
def test_fresh_vectors_have_the_variance_of_a_plain_table(operation, init_std):
    torch.manual_seed(5)
    rows = 4000
    qr = QREmbeddings(layout(rows), 16, operation=operation, collisions=8, init_std=init_std)
    initializer = normal(init_std) if init_std else None
    plain = EmbeddingCollection(layout(rows), 16, initializer=initializer)
    batch = ids(*([i] for i in range(rows)))
    out, expected = (materialize(embeddings)(batch).detach() for embeddings in (qr, plain))
    assert out.std().item() == pytest.approx(expected.std().item(), rel=0.1)
    assert abs(float(out.mean())) < 0.2 * expected.std()
    # Each id has a vector of its own.
    assert len(out.flatten(1).unique(dim=0)) == rows


def test_memory_is_that_of_its_rows():
    qr = QREmbeddings(layout(1000, 501), 8, collisions=10)
    assert qr.size_bytes == 4 * 8 * (100 + 10 + 51 + 10)
    halves = QREmbeddings(layout(1000), 8, operation="concat", collisions=10)
    assert halves.size_bytes == 4 * 4 * 110
    narrow = QREmbeddings(layout(1000), 8, collisions=10, storage="bf16")
    assert narrow.size_bytes == 2 * 8 * 110


def logistic_regression(schema: Schema, operation: Operation, **options) -> LR:
    tables = TablesConfig(
        compression="qr", collisions=5, threshold=10, operation=operation, **options
    )
    model = build_model(LRConfig(tables=tables), schema)
    assert isinstance(model, LR)
    assert isinstance(model.embeddings, QREmbeddings)
    return model


@pytest.mark.parametrize("operation", ["mult", "add"])
def test_a_logistic_regression_on_it_starts_at_zero_and_learns(operation):
    schema = Schema.one_hot(1, [40, 60])
    lr = logistic_regression(schema, operation)
    assert not lr.embeddings(ids([1, 2])).any()
    losses = train(lr, schema, build("sgd", parameter_groups(lr), 1.0))
    assert losses[0] == pytest.approx(np.log(2))
    assert losses[-1] < 0.62
    assert (lr.embeddings(ids([1, 2])) != 0).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("storage", ["bf16", "split"])
def test_every_optimizer_and_storage_trains_it(optimizer, storage):
    torch.manual_seed(0)
    schema = Schema.one_hot(1, [40, 60])
    lr = logistic_regression(schema, "mult", storage=storage)
    losses = train(lr, schema, build(optimizer, parameter_groups(lr), 0.2))
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("wrong", [-1, 21])
@pytest.mark.parametrize("kind", ["one_hot", "bag"])
def test_an_id_out_of_range_names_its_feature(wrong, kind):
    # 21 lies in the last, incomplete quotient: nothing but the check would notice.
    schema = with_kind(Schema.one_hot(0, [30, 21]), kind)
    qr = doubles(schema, 2, "mult", 4)
    batch = ids([4, 2], [0, wrong])
    with pytest.raises(IdError, match=rf"C2: id {wrong} is out of range.*21 rows"):
        qr(batch if kind == "one_hot" else lists_of_one(batch))


def test_what_cannot_apply_names_the_table():
    with pytest.raises(ConfigError, match=r"C1: its vectors have 3 numbers, and concat"):
        QREmbeddings(layout(100), 3, operation="concat")
