from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from dlrm.metrics import Metrics, auc, calibration_bins, measure, sigmoid


def draw(seed: int, size: int, ties: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=size) * 2
    if ties:
        logits = np.round(logits * ties) / ties
    labels = (rng.random(size) < sigmoid(logits - 0.5)).astype(np.float32)
    labels[:2] = [0, 1]
    return logits.astype(np.float32), labels


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), size=st.integers(2, 400), ties=st.sampled_from([0, 1, 3]))
def test_metrics_equal_scikit_learn(seed, size, ties):
    logits, labels = draw(seed, size, ties)
    values = measure(logits, labels)
    scores = sigmoid(logits)
    rate = labels.astype(float).mean()
    entropy = sk.log_loss(labels, np.full(size, rate), labels=[0, 1])
    assert values.auc == pytest.approx(sk.roc_auc_score(labels, logits), abs=1e-12)
    assert values.log_loss == pytest.approx(sk.log_loss(labels, scores, labels=[0, 1]), rel=1e-9)
    assert values.accuracy == pytest.approx(sk.accuracy_score(labels, logits > 0))
    assert values.log_loss is not None
    assert values.normalized_entropy == pytest.approx(values.log_loss / entropy, rel=1e-9)
    assert values.calibration == pytest.approx(scores.mean() / rate, rel=1e-9)
    assert values.samples == size


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_pieces_and_merges_give_the_metrics_of_the_whole(seed, cuts):
    logits, labels = draw(seed, 300, 2)
    left, right = Metrics(), Metrics()
    bounds = [0, *sorted(cuts), 300]
    for i, (a, b) in enumerate(pairwise(bounds)):
        (left if i % 2 == 0 else right).update(logits[a:b], labels[a:b])
    left.merge(right)
    assert len(left) == 300
    ours, whole = left.compute(), measure(logits, labels)
    assert ours.auc == whole.auc
    assert ours.log_loss == pytest.approx(whole.log_loss, rel=1e-12)


def test_log_loss_stays_finite_for_extreme_logits():
    values = measure(np.array([-1000.0, 1000.0, 1000.0]), np.array([0.0, 1.0, 0.0]))
    assert values.log_loss == pytest.approx(1000 / 3)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_single_class_has_no_auc_and_no_normalized_entropy(label):
    values = measure(np.array([0.3, -0.2]), np.full(2, label))
    assert values.auc is None
    assert values.normalized_entropy is None
    assert values.log_loss is not None
    assert (values.calibration is None) == (label == 0.0)


def test_nothing_has_no_metrics():
    values = Metrics().compute()
    assert values.samples == 0
    assert values.log_loss is None


def test_auc_of_equal_scores_is_one_half():
    assert auc(np.zeros(7), np.array([0, 1, 0, 1, 1, 0, 0])) == 0.5


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
