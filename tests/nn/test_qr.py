"""Quotient-remainder tables against their definition, rewritten in plain float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.errors import ConfigError, IdError
from dlrm.models.lr import LR
from dlrm.nn.embedding import Collection, EmbeddingCollection, normal
from dlrm.nn.qr import Operation, QREmbeddings
from dlrm.optim import OPTIMIZERS, build

from .bags import LARGE, SEEDS, assert_gradients, assert_is, draw, sums, train

OPERATIONS: list[Operation] = ["mult", "add", "concat"]


def made(rows, dim, operation, collisions, **options) -> QREmbeddings:
    return QREmbeddings(rows, dim, operation=operation, collisions=collisions, **options).double()


def vector_of(qr: QREmbeddings):
    combine = {
        "mult": np.multiply,
        "add": np.add,
        "concat": lambda q, r: np.concatenate([q, r]),
    }[qr.operation]

    def vector(t: int, i: int) -> np.ndarray:
        q, r = qr.quotients.table(t).numpy(), qr.remainders.table(t).numpy()
        return combine(q[i // qr.collisions], r[i % qr.collisions])

    return vector


@settings(deadline=None, max_examples=40)
@given(
    rows=LARGE,
    samples=st.integers(1, 5),
    half=st.integers(1, 3),
    operation=st.sampled_from(OPERATIONS),
    collisions=st.integers(2, 6),
    seed=SEEDS,
)
def test_is_its_definition(rows, samples, half, operation, collisions, seed):
    torch.manual_seed(seed)
    qr = made(rows, 2 * half, operation, collisions)
    assert_is(qr, vector_of(qr), samples, seed)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_gradients_are_those_of_finite_differences(operation):
    torch.manual_seed(2)
    assert_gradients(made([13, 30], 4, operation, 3), seed=1)


def test_the_originals_product_is_of_the_sums_of_a_bag():
    torch.manual_seed(3)
    qr = made([20, 30], 3, "mult", 4, product="bag")
    ids, offsets = draw([20, 30], 6, 3, seed=4)

    def part(tables: Collection, of):
        return sums(lambda t, i: tables.table(t).numpy()[of(i)], 2, 3, ids, offsets)

    expected = part(qr.quotients, lambda i: i // 4) * part(qr.remainders, lambda i: i % 4)
    np.testing.assert_allclose(qr(ids, offsets).detach().numpy(), expected, rtol=1e-12)


def test_quotients_of_large_ids_are_exact():
    # In float32 the quotient of the last id would round up, out of its table.
    rows = 3 * (2**24 + 2)
    qr = QREmbeddings([rows], 1, operation="add", collisions=3)
    ids = torch.tensor([[2**24 + 1], [rows - 1], [rows - 3]])
    found = qr(ids).detach()
    q, r = qr.quotients.table(0), qr.remainders.table(0)
    expected = q[ids[:, 0] // 3] + r[ids[:, 0] % 3]
    assert torch.equal(found[:, 0], expected)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("init_std", [None, 0.25])
def test_fresh_vectors_have_the_variance_of_a_plain_table(operation, init_std):
    torch.manual_seed(5)
    rows = 4000
    qr = QREmbeddings([rows], 16, operation=operation, collisions=8, init_std=init_std)
    plain = EmbeddingCollection([rows], 16, draw=normal(init_std) if init_std else None)
    ids = torch.arange(rows)[:, None]
    found, expected = qr(ids).detach(), plain(ids).detach()
    assert found.std().item() == pytest.approx(expected.std().item(), rel=0.1)
    assert abs(float(found.mean())) < 0.2 * expected.std()
    # Each id has a vector of its own.
    assert len(found.flatten(1).unique(dim=0)) == rows


def test_memory_is_that_of_its_rows():
    qr = QREmbeddings([1000, 501], 8, collisions=10)
    assert qr.size_bytes == 4 * 8 * (100 + 10 + 51 + 10)
    assert QREmbeddings([1000], 8, operation="concat", collisions=10).size_bytes == 4 * 4 * 110
    half = QREmbeddings([1000], 8, collisions=10, storage="bf16")
    assert half.size_bytes == 2 * 8 * 110


@pytest.mark.parametrize("operation", ["mult", "add"])
def test_a_logistic_regression_on_it_starts_at_zero_and_learns(operation):
    rows = [40, 60]
    lr = LR(1, QREmbeddings(rows, 1, operation=operation, collisions=5))
    assert not lr.embeddings(torch.tensor([[1, 2]])).any()
    losses = train(lr, rows, build("sgd", lr.parameters(), 1.0))
    assert losses[0] == pytest.approx(np.log(2))
    assert losses[-1] < 0.62
    assert (lr.embeddings(torch.tensor([[1, 2]])) != 0).all()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("storage", ["bf16", "split"])
def test_every_optimizer_and_storage_trains_it(optimizer, storage):
    torch.manual_seed(0)
    rows = [40, 60]
    lr = LR(1, QREmbeddings(rows, 1, collisions=5, storage=storage))
    losses = train(lr, rows, build(optimizer, lr.parameters(), 0.2))
    assert losses[-1] < 0.95 * losses[0]


@pytest.mark.parametrize("wrong", [-1, 21])
def test_an_id_out_of_range_names_its_feature(wrong):
    # 21 lies in the last, incomplete quotient: nothing but the check would notice.
    qr = QREmbeddings([30, 21], 2, ["C1", "C2"], collisions=4)
    ids = torch.tensor([[4, 2], [0, wrong]])
    for arguments in ((ids,), (ids.flatten(), torch.arange(5))):
        with pytest.raises(IdError, match=rf"C2: id {wrong} is out of range.*21 rows"):
            qr(*arguments)


def test_what_cannot_apply_names_the_table():
    with pytest.raises(ConfigError, match=r"C1: its vectors have 3 numbers, and concat"):
        QREmbeddings([100], 3, ["C1"], operation="concat")
