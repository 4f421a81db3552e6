import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.errors import ConfigError, DatasetError, DivergedError
from dlrm.metrics import (
    HIGHER_IS_BETTER,
    NAMES,
    SELECTING,
    RegressionValues,
    difference,
    intervals,
    is_better,
    measure_for,
    measure_regression,
    prediction_bins,
    residuals,
    selecting,
)


def draw(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels: the truth plus noise of .5, predicted with a slope of .8."""
    truth = rng.normal(2.0, 1.0, size)
    return 0.8 * truth + 0.3, truth + rng.normal(0.0, 0.5, size)


# The error is -.2 truth + .3 - noise: mean -.1, variance .04 + .25.
TRUTH = {
    "rmse": np.sqrt(0.29 + 0.01),
    "r2": 1 - 0.30 / 1.25,
    "bias": -0.1,
    "calibration": 1.9 / 2.0,
    "mae": None,
}


def test_intervals_cover_the_truth_at_their_rate():
    rng = np.random.default_rng(0)
    many, labels = draw(rng, 10**6)
    truth = TRUTH | {"mae": np.mean(np.abs(many - labels))}
    hits = dict.fromkeys(truth, 0)
    for _ in range(300):
        predictions, labels = draw(rng, 400)
        for name, interval in intervals(predictions, labels, task="regression").items():
            assert interval is not None
            hits[name] += bool(interval.low <= truth[name] <= interval.high)
    # Of 300 sets 285 are expected; three standard deviations are 11.
    assert all(270 <= count <= 297 for count in hits.values()), hits


def test_a_paired_difference_is_clear_where_intervals_overlap():
    rng = np.random.default_rng(0)
    predictions, labels = draw(rng, 2000)
    worse = predictions + rng.normal(0, 0.15, 2000)
    apart = difference(predictions, worse, labels, task="regression")["rmse"]
    ours, theirs = (intervals(p, labels, task="regression")["rmse"] for p in (predictions, worse))
    assert apart
    assert ours
    assert theirs
    assert apart.clear
    assert apart.value < 0
    assert ours.high > theirs.low
    same = difference(predictions, predictions, labels, task="regression")
    assert all(d is not None and d.value == d.low == d.high == 0 for d in same.values())


def test_users_are_drawn_together():
    predictions, labels = (np.repeat(v, 40) for v in draw(np.random.default_rng(0), 50))
    users = np.repeat(np.arange(50), 40)
    alone = intervals(predictions, labels, task="regression")["rmse"]
    together = intervals(predictions, labels, users, task="regression")["rmse"]
    assert alone
    assert together
    ratio = (together.high - together.low) / (alone.high - alone.low)
    assert ratio == pytest.approx(np.sqrt(40), rel=0.25)


def test_r2_and_calibration_can_be_undefined():
    values = measure_regression(np.array([1.0, 2.0]), np.array([0.1, 0.1]))
    assert values.r2 is None
    with pytest.raises(DatasetError, match=r"r2 is undefined: all 2 samples have the label 0.1"):
        values.require("r2")
    balanced = measure_regression(np.array([1.0, 2.0]), np.array([-1.0, 1.0]))
    with pytest.raises(DatasetError, match="calibration is undefined: the mean label is 0"):
        balanced.require("calibration")
    assert balanced.require("rmse") == pytest.approx(np.sqrt(2.5))
    with pytest.raises(DatasetError, match="rmse is undefined: there are no samples"):
        RegressionValues().require("rmse")
    with pytest.raises(ConfigError, match='unknown metric "auc"; choose one of: rmse, mae, r2'):
        values.require("auc")
    same = intervals(np.array([1.0, 2.0]), np.zeros(2), task="regression")
    assert same["r2"] is same["calibration"] is None
    assert same["rmse"] is not None


def test_what_is_no_number_is_refused():
    with pytest.raises(DivergedError, match="1 of 2 scores are not numbers"):
        measure_regression(np.array([np.nan, 1.0]), np.zeros(2))
    with pytest.raises(DivergedError, match="a prediction is infinite"):
        measure_regression(np.array([np.inf, 1.0]), np.zeros(2))
    with pytest.raises(DatasetError, match="1 scores, but 2 labels"):
        measure_regression(np.zeros(1), np.zeros(2))


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 500), bins=st.integers(1, 30))
def test_bins_of_predictions_hold_every_sample_once(seed, size, bins):
    predictions, labels = draw(np.random.default_rng(seed), size)
    predictions = np.round(predictions, 1).astype(np.float32)
    curve = prediction_bins(predictions, labels, bins)
    assert len(curve) <= bins
    assert sum(b.samples for b in curve) == size
    for name, values in (("mean_prediction", predictions), ("mean_label", labels)):
        total = sum(b.samples * getattr(b, name) for b in curve)
        assert total == pytest.approx(values.sum(), rel=1e-5)
    for k, b in enumerate(curve):
        last = k == len(curve) - 1
        inside = (predictions >= b.low) & (
            (predictions <= b.high) if last else (predictions < b.high)
        )
        assert inside.sum() == b.samples
        assert b.label_low <= b.label_high
        assert {b.label_low, b.label_high} <= set(labels[inside].tolist())
    assert prediction_bins(predictions[:0], labels[:0]) == []


def test_residuals_are_counted_around_zero():
    predictions, labels = draw(np.random.default_rng(0), 10_000)
    counted = residuals(predictions, labels, 30)
    assert len(counted.edges) == len(counted.counts) + 1 == 31
    assert counted.edges[0] == -counted.edges[-1]
    assert sum(counted.counts) + counted.outside == 10_000
    assert 0 < counted.outside <= 110
    error = predictions - labels
    low, high = counted.edges[10], counted.edges[11]
    assert counted.counts[10] == np.count_nonzero((error >= low) & (error < high))
    assert sum(residuals(labels, labels).counts) == 10_000
    assert sum(residuals(labels[:0], labels[:0]).counts) == 0


def test_a_task_knows_its_metrics_and_which_way_is_better():
    assert selecting("classification") == "auc"
    assert selecting("regression") == "rmse"
    assert selecting("regression", "r2") == "r2"
    for task in ("classification", "regression"):
        for name in SELECTING[task]:
            assert name in NAMES[task]
            assert selecting(task, name) == name
    with pytest.raises(ConfigError, match='"auc"; choose one of: auto, rmse, mae, r2'):
        selecting("regression", "auc")
    assert is_better("auc", 0.8, 0.7)
    assert is_better("rmse", 0.7, 0.8)
    assert {"auc", "accuracy", "r2"} <= HIGHER_IS_BETTER
    assert measure_for("regression") is measure_regression
