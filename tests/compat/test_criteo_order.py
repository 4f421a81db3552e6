from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import RandomState

from dlrm.compat.criteo_order import in_memory, memory_mapped

days = st.lists(st.integers(1, 40), min_size=2, max_size=7)
seeds = st.integers(0, 2**32 - 1)
randomize = st.sampled_from(["total", "day", "none"])


@settings(deadline=None)
@given(days, seeds, randomize, st.sampled_from([in_memory, memory_mapped]))
def test_every_training_row_comes_once(rows, seed, randomize, order):
    found = order(rows, randomize, RandomState(seed))
    train = sum(rows[:-1])
    assert sorted(found.tolist()) == list(range(train))
    bounds = np.cumsum([0, *rows[:-1]])
    if randomize == "none":
        assert found.tolist() == list(range(train))
    if randomize == "day":
        for first, last in pairwise(bounds):
            assert sorted(found[first:last].tolist()) == list(range(first, last))


@settings(deadline=None)
@given(days, seeds)
def test_rows_are_thrown_into_days_one_by_one(rows, seed):
    """The shuffle out of core against its definition, row by row."""
    rng, expected_rng = RandomState(seed), RandomState(seed)
    found = memory_mapped(rows, "total", rng)
    buckets: list[list[int]] = [[] for _ in rows[:-1]]
    row = 0
    for day, size in enumerate(rows):
        drawn = expected_rng.randint(0, len(buckets), size)
        for choice in drawn if day < len(rows) - 1 else []:
            bucket = choice
            while len(buckets[bucket]) >= rows[bucket]:
                bucket = expected_rng.randint(0, len(buckets))
            buckets[bucket].append(row)
            row += 1
    expected = [np.array(b)[expected_rng.permutation(len(b))] for b in buckets]
    assert found.tolist() == np.concatenate(expected).tolist()
    # Both have drawn as many numbers: what comes next is the same.
    assert rng.random_sample() == expected_rng.random_sample()


def test_shuffles_differ_by_seed_and_really_mix():
    rows = [50] * 7
    one, other = (memory_mapped(rows, "total", RandomState(seed)) for seed in (1, 2))
    assert not np.array_equal(one, other)
    days_in_first = set((one[:50] // 50).tolist())
    assert len(days_in_first) == 6


@pytest.mark.parametrize("order", [in_memory, memory_mapped])
def test_without_shuffling_nothing_is_drawn(order):
    rng = RandomState(5)
    order([3, 3, 3], "none", rng)
    assert rng.random_sample() == RandomState(5).random_sample()
