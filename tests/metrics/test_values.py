import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from dlrm.errors import ConfigError, DatasetError, DivergedError
from dlrm.metrics import Metrics, MetricValues, auc, measure, sigmoid

from .simulation import draw


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(2, 400),
    ties=st.sampled_from([0, 1, 3]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_metrics_equal_scikit_learn(seed, size, ties, dtype):
    logits, labels = draw(seed, size, ties)
    logits = logits.astype(dtype)
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


@settings(deadline=None, max_examples=40)
@given(
    scores=st.lists(
        st.one_of(st.sampled_from([0.0, -0.0, 1.0]), st.floats(width=32, allow_nan=False)),
        min_size=2,
        max_size=40,
    ),
    seed=st.integers(0, 100),
)
def test_auc_counts_the_pairs_of_any_scores(scores, seed):
    x = np.array(scores, np.float32)
    labels = np.random.default_rng(seed).integers(0, 2, len(x))
    labels[:2] = [0, 1]
    clicks, others = x[labels == 1][:, None], x[labels == 0]
    pairs = np.mean((clicks > others) + 0.5 * (clicks == others))
    for kind in (np.float32, np.float64):
        assert auc(x.astype(kind), labels) == pytest.approx(pairs, abs=1e-14)


def test_scores_that_differ_in_float64_alone_are_told_apart():
    assert auc(np.array([1.0, 1.0 + 1e-12]), np.array([0, 1])) == 1.0


def test_log_loss_stays_finite_for_extreme_logits():
    for kind in (np.float32, np.float64):
        logits = np.array([-1000.0, 1000.0, 1000.0], kind)
        values = measure(logits, np.array([0.0, 1.0, 0.0]))
        assert values.log_loss == pytest.approx(1000 / 3)
        assert all(value is not None for value in values.to_dict().values())
    largest = np.float32(3e38)
    values = measure(np.array([largest, -largest]), np.array([0.0, 1.0]))
    assert values.log_loss == pytest.approx(3e38)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_single_class_has_no_auc_and_no_normalized_entropy(label):
    values = measure(np.array([0.3, -0.2]), np.full(2, label))
    assert values.auc is None
    assert values.normalized_entropy is None
    assert values.log_loss is not None
    assert (values.calibration is None) == (label == 0.0)
    with pytest.raises(DatasetError, match=rf"auc is undefined: all 2 samples have .* {label:.0f}"):
        values.require("auc")
    assert values.require("log_loss") == values.log_loss


def test_what_was_asked_for_must_exist():
    with pytest.raises(ConfigError, match='unknown metric "roc"; choose one of: auc, log_loss'):
        measure(np.zeros(2), np.array([0, 1])).require("roc")
    with pytest.raises(DatasetError, match="log_loss is undefined: there are no samples"):
        Metrics().compute()[0].require("log_loss")


def test_nothing_has_no_metrics():
    (values,) = Metrics().compute()
    assert values.samples == 0
    assert values.to_dict() == MetricValues().to_dict()


def test_what_is_no_number_is_refused():
    with pytest.raises(DivergedError, match="1 of 3 scores are not numbers"):
        measure(np.array([0.0, np.nan, 1.0], np.float32), np.array([0, 1, 1]))
    with pytest.raises(DivergedError, match="infinite"):
        measure(np.array([0.0, np.inf], np.float32), np.array([0, 0]))
    with pytest.raises(DatasetError, match="3 scores, but 2 labels"):
        auc(np.zeros(3), np.zeros(2))


def test_auc_of_equal_scores_is_one_half():
    assert auc(np.zeros(7), np.array([0, 1, 0, 1, 1, 0, 0])) == 0.5
