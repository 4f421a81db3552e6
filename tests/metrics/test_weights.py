"""A sample of weight w counts as w equal samples, in every metric."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from dlrm.errors import DatasetError
from dlrm.metrics import (
    auc,
    auc_by_segment,
    calibration_bins,
    difference,
    intervals,
    measure,
    measure_regression,
    prediction_bins,
    sigmoid,
    user_auc,
)

from .simulation import OFF, draw

SEEDS = st.integers(0, 2**32)


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS,
    size=st.integers(2, 400),
    ties=st.sampled_from([0, 1, 3]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_weighted_metrics_equal_scikit_learn(seed, size, ties, dtype):
    logits, labels = draw(seed, size, ties)
    logits = logits.astype(dtype)
    w = np.random.default_rng(seed).exponential(size=size).astype(dtype) + dtype(0.01)
    values, scores = measure(logits, labels, w), sigmoid(logits)
    rate = np.average(labels, weights=w)
    loss = sk.log_loss(labels, scores, labels=[0, 1], sample_weight=w)
    entropy = sk.log_loss(labels, np.full(size, rate), labels=[0, 1], sample_weight=w)
    area = sk.roc_auc_score(labels, logits, sample_weight=w)
    assert values.auc == pytest.approx(area, abs=1e-6)
    assert auc(logits, labels, w) == values.auc
    assert values.log_loss == pytest.approx(loss, rel=1e-5)
    right = sk.accuracy_score(labels, logits > 0, sample_weight=w)
    assert values.accuracy == pytest.approx(right, abs=1e-6)
    assert values.normalized_entropy == pytest.approx(loss / entropy, rel=1e-5)
    assert values.calibration == pytest.approx(np.average(scores, weights=w) / rate, rel=1e-5)
    assert values.click_rate == pytest.approx(rate, rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    seed=SEEDS, size=st.integers(2, 300), constant=st.booleans(), offset=st.sampled_from([0, 1e4])
)
def test_weighted_errors_equal_scikit_learn(seed, size, constant, offset):
    rng = np.random.default_rng(seed)
    labels = np.full(size, 3.0) if constant else rng.normal(size=size) + offset
    predictions, w = labels + rng.normal(size=size), rng.exponential(size=size)
    for weights in (None, w):
        values = measure_regression(predictions, labels, weights)
        arguments = {"y_true": labels, "y_pred": predictions, "sample_weight": weights}
        assert values.rmse == pytest.approx(sk.root_mean_squared_error(**arguments), rel=1e-9)
        assert values.mae == pytest.approx(sk.mean_absolute_error(**arguments), rel=1e-9)
        if constant:
            assert values.r2 is None
        else:
            assert values.r2 == pytest.approx(sk.r2_score(**arguments), rel=1e-6, abs=1e-6)
        mean = np.average(labels, weights=weights)
        predicted = np.average(predictions, weights=weights)
        assert values.bias == pytest.approx(predicted - mean, abs=1e-9)
        assert values.calibration == pytest.approx(predicted / mean, rel=1e-6, abs=1e-6)
        assert values.mean_label == pytest.approx(mean)


def close(values: dict, others: dict, but: tuple[str, ...] = ()) -> None:
    for name, value in values.items():
        if name not in but:
            assert others[name] == (None if value is None else pytest.approx(value, abs=1e-9)), name


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, size=st.integers(2, 200), ties=st.sampled_from([0, 2]))
def test_a_weight_repeats_its_sample(seed, size, ties):
    logits, labels = draw(seed, size, ties)
    rng = np.random.default_rng(seed)
    w = rng.integers(0, 4, size).astype(np.float32)
    users = rng.integers(-1, 9, size)
    again = np.repeat(np.arange(size), w.astype(int))
    counts = ("samples", "gauc_samples", "gauc_samples_left_out", "ece_noise")
    values = measure(logits, labels, w).to_dict()
    close(measure(logits[again], labels[again]).to_dict(), values, counts)
    assert values["samples"] == np.count_nonzero(w)
    close(
        measure_regression(logits[again], labels[again]).to_dict(),
        measure_regression(logits, labels, w).to_dict(),
        counts,
    )
    close(
        user_auc(logits[again], labels[again], users[again]).to_dict(),
        user_auc(logits, labels, users, w).to_dict(),
        counts,
    )
    weighted = auc_by_segment(logits, labels, users + 1, w)
    repeated = auc_by_segment(logits[again], labels[again], users[again] + 1)
    assert weighted.segments.tolist() == repeated.segments.tolist()
    np.testing.assert_allclose(weighted.auc, repeated.auc, atol=1e-12)
    assert weighted.weights is not None
    np.testing.assert_allclose(weighted.weights, repeated.samples)
    scores = sigmoid(logits)
    curve, expected = (
        calibration_bins(scores, labels, weights=w),
        calibration_bins(scores[again], labels[again]),
    )
    assert [(b.low, b.high) for b in curve] == [(b.low, b.high) for b in expected]
    for name in ("mean_score", "click_rate"):
        np.testing.assert_allclose(
            [getattr(b, name) for b in curve], [getattr(b, name) for b in expected], atol=1e-12
        )
    predicted, whole = (
        prediction_bins(logits, scores, weights=w),
        prediction_bins(logits[again], scores[again]),
    )
    for one, other in zip(predicted, whole, strict=True):
        assert (one.low, one.high) == (other.low, other.high)
        assert (one.label_low, one.label_high) == (other.label_low, other.label_high)
        assert one.mean_label == pytest.approx(other.mean_label)


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, size=st.integers(2, 200), task=st.sampled_from(["classification", "regression"]))
def test_weights_of_one_are_none(seed, size, task):
    logits, labels = draw(seed, size, 2)
    users, ones = np.arange(size) // 3, np.ones(size, np.float32)
    worse = logits + np.float32(0.1)
    alone = intervals(logits, labels, users, task=task)
    weighted = intervals(logits, labels, users, ones, task)
    paired = difference(logits, worse, labels, users, task=task)
    weighted_pair = difference(logits, worse, labels, users, ones, task)
    for name, interval in alone.items():
        other, pair, weighted_one = weighted[name], paired[name], weighted_pair[name]
        assert (interval is None, pair is None) == (other is None, weighted_one is None)
        if interval and other:
            assert (other.low, other.high) == pytest.approx((interval.low, interval.high))
        if pair and weighted_one:
            assert weighted_one.low == pytest.approx(pair.low, abs=1e-12)
            assert weighted_one.high == pytest.approx(pair.high, abs=1e-12)


@settings(deadline=None, max_examples=20)
@given(seed=SEEDS, size=st.integers(2, 200), task=st.sampled_from(["classification", "regression"]))
def test_a_sample_of_weight_nothing_is_none(seed, size, task):
    logits, labels = draw(seed, size, 2)
    rng = np.random.default_rng(seed)
    w, users = rng.integers(0, 3, size) * 0.7, rng.integers(-1, 9, size)
    w[:2] = 1.0
    kept = w > 0
    fewer = (logits[kept], labels[kept], users[kept], w[kept], task)
    assert intervals(logits, labels, users, w, task) == intervals(*fewer)
    measured = measure(logits, labels, w)
    assert measured == measure(logits[kept], labels[kept], w[kept])
    # Where the weights come in another order the metrics are equal bit for bit.
    order = rng.permutation(size)
    assert measured == measure(logits[order], labels[order], w[order])


def test_weighted_intervals_cover_the_truth_at_their_rate():
    rng = np.random.default_rng(1)
    truth = OFF.metrics()
    names = ("auc", "log_loss", "normalized_entropy", "accuracy", "calibration")
    hits = dict.fromkeys(names, 0)
    for _ in range(200):
        logits, labels = OFF.draw(rng, 600)
        # They say nothing about the rows, so that the truth is the same.
        result = intervals(logits, labels, weights=rng.choice([0.5, 1.0, 3.0], 600))
        for name in names:
            interval = result[name]
            assert interval is not None
            hits[name] += interval.low <= truth[name] <= interval.high
    assert all(178 <= count <= 199 for count in hits.values()), hits


def test_without_any_weight_there_are_no_samples():
    nothing = np.zeros(3)
    labels = np.array([0, 1, 1])
    assert measure(nothing, labels, nothing).undefined() == "there are no samples"
    assert measure_regression(nothing, labels, nothing).samples == 0
    assert calibration_bins(nothing, labels, weights=nothing) == []
    assert set(intervals(nothing, labels, weights=nothing).values()) == {None}
    assert user_auc(nothing, labels, np.zeros(3, int), nothing).gauc is None


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_a_weight_without_meaning_is_refused(wrong):
    w = np.array([1.0, wrong, 2.0])
    labels = np.array([0, 1, 1])
    for metric in (measure, measure_regression, auc, intervals):
        with pytest.raises(DatasetError, match=f"the weight of sample 2 is {wrong:g}, expected a"):
            metric(np.zeros(3), labels, weights=w)
    with pytest.raises(DatasetError, match="3 weights, but 2 labels"):
        measure(np.zeros(2), labels[:2], w)
