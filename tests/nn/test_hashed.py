"""Hashed tables against their definition in plain Python integers and float64 numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.errors import ConfigError, IdError
from dlrm.nn.embedding import EmbeddingCollection, normal
from dlrm.nn.hashed import HashedEmbeddings

from .bags import LARGE, SEEDS, assert_gradients, assert_is


def rows_of(made: HashedEmbeddings, t: int, i: int) -> list[int]:
    """The formula of the module, in Python's integers, which have no last bit."""
    m, x = made.tables.rows[t], i ^ (i >> 16)
    for shift, factor in ((15, 0x7FEB352D), (16, 0x846CA68B)):
        x = x * factor % 2**32
        x ^= x >> shift
    return [
        m * (((a * x + b) % 2**64) >> 32) >> 32
        for a, b in zip(made.multipliers[t].tolist(), made.shifts[t].tolist(), strict=True)
    ]


@settings(deadline=None, max_examples=40)
@given(
    rows=LARGE,
    samples=st.integers(1, 5),
    collisions=st.integers(2, 9),
    hashes=st.integers(1, 3),
    weighted=st.booleans(),
    seed=SEEDS,
)
def test_is_its_definition(rows, samples, collisions, hashes, weighted, seed):
    torch.manual_seed(seed)
    made = HashedEmbeddings(
        rows, 8, collisions=collisions, hashes=hashes, weighted=weighted, seed=seed
    ).double()
    weights = made.weights
    if weights is not None:
        weights.fill(normal(1.0))

    def vector(t: int, i: int) -> np.ndarray:
        found = made.tables.table(t).numpy()[rows_of(made, t, i)]
        factors = np.ones(hashes) if weights is None else weights.table(t).numpy()[i]
        return factors @ found

    assert_is(made, vector, samples, seed)


@settings(deadline=None, max_examples=200)
@given(i=st.integers(0, 2**32 - 1), m=st.integers(1, 2**31 - 1), seed=SEEDS)
def test_rows_are_within_the_table_for_any_id(i, m, seed):
    made = HashedEmbeddings([20], 4, seed=seed)
    made.tables.sizes[0] = m
    made.tables.rows = (m,)
    found = made.hash(torch.tensor([[i]])).flatten().tolist()
    assert found == rows_of(made, 0, i)
    assert all(0 <= row < m for row in found)


def test_hashes_are_the_same_on_every_machine():
    made = HashedEmbeddings([1000, 1000], 4, seed=7)
    ids = torch.tensor([[0, 0], [1, 1], [999, 999]])
    assert made.hash(ids).tolist() == HASHES
    assert made.hash(ids.flatten(), torch.arange(7)).view(3, 2, 2).tolist() == HASHES
    other = HashedEmbeddings([1000, 1000], 4, seed=8)
    assert other.hash(ids).tolist() != HASHES


HASHES = [[[113, 62], [116, 82]], [[159, 162], [217, 13]], [[165, 52], [173, 150]]]


def test_ids_meet_as_rarely_as_at_random():
    n, c = 3000, 10
    made = HashedEmbeddings([n], 4, collisions=c, hashes=2)
    found = made.hash(torch.arange(n)[:, None])[:, 0].numpy()
    for column in found.T:
        counts = np.bincount(column, minlength=n // c)
        meetings = (counts * (counts - 1) / 2).sum()
        assert meetings == pytest.approx(n * (n - 1) / 2 / (n / c), rel=0.15)
    # Those that meet by one function are told apart by the other.
    pairs = found[:, 0] * (n // c) + found[:, 1]
    assert len(np.unique(pairs)) > 0.95 * n


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_are_those_of_finite_differences(weighted):
    torch.manual_seed(2)
    made = HashedEmbeddings([13, 30], 4, collisions=3, weighted=weighted)
    assert_gradients(made.double(), seed=1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("init_std", [None, 0.25])
def test_fresh_vectors_have_the_variance_of_a_plain_table(weighted, init_std):
    torch.manual_seed(5)
    ids = torch.arange(4000)[:, None]
    made = HashedEmbeddings([4000], 16, weighted=weighted, init_std=init_std)
    plain = EmbeddingCollection([4000], 16, draw=normal(init_std) if init_std else None)
    assert made(ids).std().item() == pytest.approx(plain(ids).std().item(), rel=0.1)


def test_memory_counts_the_weights_too():
    assert HashedEmbeddings([1000], 8, collisions=10).size_bytes == 4 * 8 * 100
    weighted = HashedEmbeddings([1000], 8, collisions=10, hashes=3, weighted=True)
    assert weighted.size_bytes == 4 * (8 * 100 + 3 * 1000)


def test_zero_can_be_left():
    made = HashedEmbeddings([40], 4, weighted=True)
    made.start_at_zero()
    out = made(torch.tensor([[3]]))
    assert not out.any()
    out.sum().backward()
    (weight,) = made.tables.parameters()
    assert weight.grad is not None
    assert weight.grad.to_dense().any()


def test_what_is_wrong_is_named():
    made = HashedEmbeddings([30, 21], 2, ["C1", "C2"])
    with pytest.raises(IdError, match=r"C2: id 21 is out of range.*21 rows"):
        made(torch.tensor([[4, 21]]))
    with pytest.raises(ConfigError, match=r"C1: hashing its 30 ids into 8 rows of 2 and 2 weights"):
        HashedEmbeddings([30, 21], 2, ["C1", "C2"], weighted=True)
