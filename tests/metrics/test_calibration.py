import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.metrics import calibration_bins, measure, sigmoid

from .simulation import OFF, RIGHT, draw


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 500), bins=st.integers(1, 30))
def test_calibration_bins_hold_every_sample_once(seed, size, bins):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(size), int(rng.integers(1, 4)))
    labels = (rng.random(size) < scores).astype(float)
    curve = calibration_bins(scores, labels, bins)
    assert len(curve) <= bins
    assert sum(b.samples for b in curve) == size
    assert sum(b.samples * b.mean_score for b in curve) == pytest.approx(scores.sum())
    assert sum(b.samples * b.click_rate for b in curve) == pytest.approx(labels.sum())
    assert all(b.low <= b.mean_score + 1e-12 and b.mean_score <= b.high + 1e-12 for b in curve)
    for i, b in enumerate(curve):
        last = i == len(curve) - 1
        inside = (scores >= b.low) & ((scores <= b.high) if last else (scores < b.high))
        assert inside.sum() == b.samples


def test_bins_hold_equal_numbers_where_no_scores_are_equal():
    scores = np.random.default_rng(0).random(1003)
    counts = [b.samples for b in calibration_bins(scores, np.zeros(1003), 20)]
    assert len(counts) == 20
    assert max(counts) - min(counts) <= 1


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), size=st.integers(2, 500), ties=st.sampled_from([0, 3]))
def test_ece_is_the_mean_difference_over_the_bins(seed, size, ties):
    logits, labels = draw(seed, size, ties)
    curve = calibration_bins(sigmoid(logits), labels)
    ece = sum(b.samples * abs(b.mean_score - b.click_rate) for b in curve) / size
    assert measure(logits, labels).ece == pytest.approx(ece, rel=1e-9)


def test_scores_that_are_right_have_the_ece_that_luck_gives():
    rng = np.random.default_rng(0)
    drawn = [measure(*RIGHT.draw(rng, 2000)) for _ in range(200)]
    luck = np.mean([values.ece_noise or 0.0 for values in drawn])
    assert np.mean([values.require("ece") for values in drawn]) == pytest.approx(luck, rel=0.05)


def test_scores_that_are_off_have_an_ece_beyond_luck():
    values = measure(*OFF.draw(np.random.default_rng(0), 200_000))
    assert values.ece == pytest.approx(OFF.metrics()["ece"], rel=0.05)
    assert values.ece_noise is not None
    assert values.require("ece") > 5 * values.ece_noise
