"""The permutation test against scipy's, by hand, and at its rate."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from dlrm.training.significance import LEVEL, can_tell, chance_of_difference

values = st.lists(st.integers(-50, 50).map(lambda i: i / 7), min_size=2, max_size=4)


@settings(deadline=None, max_examples=40)
@given(values, values)
def test_equals_scipy(first, second):
    def apart(x, y, axis):
        # Scipy takes what differs by rounding for different.
        return np.round(np.abs(np.mean(x, axis=axis) - np.mean(y, axis=axis)), 9)

    oracle = permutation_test(
        (first, second), apart, alternative="greater", n_resamples=10**6, vectorized=True
    )
    assert chance_of_difference(first, second) == pytest.approx(oracle.pvalue)


def test_by_hand():
    # Of the 70 ways to choose 4 of 8 only two lie as far apart.
    assert chance_of_difference([1, 2, 3, 4], [5, 6, 7, 8]) == pytest.approx(2 / 70)
    assert chance_of_difference([0.5, 0.5], [0.5, 0.5]) == 1.0
    assert chance_of_difference([1.0], [2.0]) == 1.0


def test_order_and_sides_do_not_matter():
    first, second = [0.1, 0.4, 0.2, 0.6], [0.3, 0.7, 0.9]
    p = chance_of_difference(first, second)
    assert chance_of_difference(second, first) == pytest.approx(p)
    assert chance_of_difference(first[::-1], second) == pytest.approx(p)


def test_equal_models_are_told_apart_at_most_at_the_level():
    rng = np.random.default_rng(5)
    draws = rng.normal(size=(400, 10))
    found = np.mean([chance_of_difference(row[:5].tolist(), row[5:].tolist()) for row in (draws)])
    false = np.mean(
        [chance_of_difference(row[:5].tolist(), row[5:].tolist()) < LEVEL for row in draws]
    )
    assert 0.4 < found < 0.6
    assert false < LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / len(draws))


def test_many_seeds_are_drawn_instead_of_counted():
    rng = np.random.default_rng(6)
    near, far = rng.normal(size=12), rng.normal(size=12)
    assert chance_of_difference(near.tolist(), far.tolist()) > LEVEL
    assert chance_of_difference(near.tolist(), (far + 5).tolist()) < 0.001


@pytest.mark.parametrize(
    ("first", "second", "tells"), [(1, 1, False), (3, 3, False), (4, 4, True), (2, 5, True)]
)
def test_few_seeds_cannot_tell(first, second, tells):
    assert can_tell(first, second) == tells
    least = chance_of_difference([0.0] * first, [1.0] * second)
    assert (least <= LEVEL) == tells
