import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.metrics import auc, difference, measure
from dlrm.metrics.auc import placements
from dlrm.metrics.intervals import mean_change, row_losses


@given(
    scores=st.lists(st.integers(-3, 3), min_size=2, max_size=30),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_placements_average_to_the_auc(scores, seed):
    rng = np.random.default_rng(seed)
    logits = np.array(scores, np.float32)
    clicks = rng.random(len(logits)) < 0.5
    weights = rng.integers(1, 4, len(logits)).astype(float)
    shares = placements(logits, clicks, weights)
    if clicks.all() or not clicks.any():
        assert shares is None
        return
    assert shares is not None
    # A weight is as good as so many equal rows.
    times = weights.astype(int)
    expected = auc(np.repeat(logits, times), np.repeat(clicks, times).astype(np.float32))
    for kind in (clicks, ~clicks):
        assert np.average(shares[kind], weights=weights[kind]) == pytest.approx(expected)


def test_intervals_are_those_of_the_bootstrap():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=3000)
    labels = (rng.random(3000) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    better = (truth + rng.normal(size=3000) / 3).astype(np.float32)
    worse = (truth + rng.normal(size=3000)).astype(np.float32)
    clicks, ones = labels != 0, np.ones(3000)
    shares = [placements(logits, clicks, ones) for logits in (better, worse)]
    assert shares[0] is not None
    assert shares[1] is not None
    losses = [row_losses("classification", logits, labels) for logits in (better, worse)]
    changes = {
        "auc": mean_change(shares[0] - shares[1], ones, clicks),
        "log_loss": mean_change(losses[0] - losses[1], ones),
    }
    drawn = difference(better, worse, labels)
    for name, (value, low, high) in changes.items():
        other = drawn[name]
        assert other is not None
        assert value == pytest.approx(other.value, abs=1e-6)
        assert high - low == pytest.approx(other.high - other.low, rel=0.15)


def test_the_losses_are_those_of_the_metrics():
    logits, labels = np.array([0.5, -2.0, 3.0], np.float32), np.array([1, 0, 0], np.float32)
    expected = measure(logits, labels).log_loss
    assert row_losses("classification", logits, labels).mean() == pytest.approx(expected)
    assert row_losses("regression", logits, labels).tolist() == [0.25, 4.0, 9.0]
