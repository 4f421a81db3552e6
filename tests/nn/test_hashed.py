"""Hashed tables against their definition in plain Python integers and float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import history_schema, lists_of_one, schemas, with_kind
from dlrm.errors import ConfigError, IdError
from dlrm.nn.embedding import EmbeddingCollection, Layout, materialize
from dlrm.nn.hashed import HashedEmbeddings
from dlrm.nn.initializer import normal
from dlrm.nn.layout import Block
from dlrm.schema import Schema

from .bags import LARGE, SEEDS, assert_gradients, assert_is, ids, layout, number


def rows_of(hashed: HashedEmbeddings, t: int, i: int) -> list[int]:
    """The formula of the module, in Python's integers, which have no last bit."""
    m, x = hashed.tables.layout.sizes[t], i ^ (i >> 16)
    for shift, factor in ((15, 0x7FEB352D), (16, 0x846CA68B)):
        x = x * factor % 2**32
        x ^= x >> shift
    return [
        m * (((a * x + b) % 2**64) >> 32) >> 32
        for a, b in zip(hashed.multipliers[t].tolist(), hashed.shifts[t].tolist(), strict=True)
    ]


def hashes_of(hashed: HashedEmbeddings, *samples: list[int]) -> torch.Tensor:
    """The rows (B, T, k) of one-hot ids."""
    return hashed.hash(Block(0, torch.tensor(samples)))


@settings(deadline=None, max_examples=40)
@given(
    schema=schemas(LARGE),
    samples=st.integers(1, 5),
    collisions=st.integers(2, 9),
    hashes=st.integers(1, 3),
    weighted=st.booleans(),
    seed=SEEDS,
)
def test_is_its_definition(schema, samples, collisions, hashes, weighted, seed):
    torch.manual_seed(seed)
    hashed = materialize(
        HashedEmbeddings(
            Layout.of(schema), 8, collisions=collisions, hashes=hashes, weighted=weighted,
            seed=seed,
        )
    ).double()  # fmt: skip
    weights = hashed.weights
    if weights is not None:
        weights.fill(normal(1.0))

    def vector(table: str, i: int) -> np.ndarray:
        t = number(hashed, table)
        rows = hashed.tables.table(t).numpy()[rows_of(hashed, t, i)]
        factors = np.ones(hashes) if weights is None else weights.table(t).numpy()[i]
        return factors @ rows

    assert_is(hashed, schema, vector, samples, seed)


@settings(deadline=None, max_examples=200)
@given(i=st.integers(0, 2**32 - 1), m=st.integers(1, 2**31 - 1), seed=SEEDS)
def test_rows_are_within_the_table_for_any_id(i, m, seed):
    # Tables of n ids become n / 4 rows; none of them gets any memory here.
    hashed = HashedEmbeddings(layout(2**33), 4, seed=seed)
    hashed.tables.layout = hashed.tables.layout.resized([m])
    hashed.get_buffer("rows_of_table")[0] = m
    rows = hashes_of(hashed, [i]).flatten().tolist()
    assert rows == rows_of(hashed, 0, i)
    assert all(0 <= row < m for row in rows)


def test_hashes_are_the_same_on_every_machine():
    schema = Schema.one_hot(0, [1000, 1000])
    hashed = HashedEmbeddings(Layout.of(schema), 4, seed=7)
    samples = [[0, 0], [1, 1], [999, 999]]
    assert hashes_of(hashed, *samples).tolist() == HASHES
    lists = lists_of_one(ids(*samples)).lists
    assert lists is not None
    several = HashedEmbeddings(Layout.of(with_kind(schema, "sequence")), 4, seed=7)
    assert several.hash(Block(1, *lists)).view(3, 2, 2).tolist() == HASHES
    other = HashedEmbeddings(Layout.of(schema), 4, seed=8)
    assert hashes_of(other, *samples).tolist() != HASHES


HASHES = [[[113, 62], [116, 82]], [[159, 162], [217, 13]], [[165, 52], [173, 150]]]


def test_ids_meet_as_rarely_as_at_random():
    n, c = 3000, 10
    hashed = HashedEmbeddings(layout(n), 4, collisions=c, hashes=2)
    rows = hashes_of(hashed, *([i] for i in range(n)))[:, 0].numpy()
    for column in rows.T:
        counts = np.bincount(column, minlength=n // c)
        meetings = (counts * (counts - 1) / 2).sum()
        assert meetings == pytest.approx(n * (n - 1) / 2 / (n / c), rel=0.15)
    # Those that meet by one function are told apart by the other.
    pairs = rows[:, 0] * (n // c) + rows[:, 1]
    assert len(np.unique(pairs)) > 0.95 * n


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_those_of_finite_differences(weighted):
    torch.manual_seed(2)
    schema = history_schema(rows=(13, 30, 12))
    hashed = HashedEmbeddings(Layout.of(schema), 4, collisions=3, weighted=weighted)
    assert_gradients(materialize(hashed).double(), schema, seed=1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("init_std", [None, 0.25])
def test_fresh_vectors_have_the_variance_of_a_plain_table(weighted, init_std):
    torch.manual_seed(5)
    batch = ids(*([i] for i in range(4000)))
    hashed = HashedEmbeddings(layout(4000), 16, weighted=weighted, init_std=init_std)
    initializer = normal(init_std) if init_std else None
    plain = EmbeddingCollection(layout(4000), 16, initializer=initializer)
    ours, theirs = (materialize(embeddings)(batch).std().item() for embeddings in (hashed, plain))
    assert ours == pytest.approx(theirs, rel=0.1)


def test_memory_counts_the_weights_too():
    assert HashedEmbeddings(layout(1000), 8, collisions=10).size_bytes == 4 * 8 * 100
    weighted = HashedEmbeddings(layout(1000), 8, collisions=10, hashes=3, weighted=True)
    assert weighted.size_bytes == 4 * (8 * 100 + 3 * 1000)


def test_zero_can_be_left():
    hashed = HashedEmbeddings(layout(40), 4, weighted=True)
    hashed.start_at_zero()
    out = materialize(hashed)(ids([3]))
    assert not out.any()
    out.sum().backward()
    (weight,) = hashed.tables.parameters()
    assert weight.grad is not None
    assert weight.grad.to_dense().any()


def test_what_is_wrong_is_named():
    hashed = materialize(HashedEmbeddings(layout(30, 21), 2))
    with pytest.raises(IdError, match=r"C2: id 21 is out of range.*21 rows"):
        hashed(ids([4, 21]))
    with pytest.raises(ConfigError, match=r"C1: hashing its 30 ids into 8 rows of 2 and 2 weights"):
        HashedEmbeddings(layout(30, 21), 2, weighted=True)
