from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from dlrm.errors import DatasetError
from dlrm.metrics import Metrics, MetricValues, measure, measure_regression

from .simulation import draw


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 300), max_size=5),
    order=st.randoms(use_true_random=False),
    weighted=st.booleans(),
    task=st.sampled_from(["classification", "regression"]),
)
def test_pieces_and_merges_give_the_metrics_of_the_whole_bit_for_bit(
    seed, cuts, order, weighted, task
):
    logits, labels = draw(seed, 300, 2)
    weights = np.random.default_rng(seed).integers(0, 5, 300) / 3 if weighted else None
    weights = None if weights is None else weights.astype(np.float32)
    pieces = list(pairwise([0, *sorted(cuts), 300]))
    order.shuffle(pieces)
    left, right = Metrics(task=task), Metrics(task=task)
    for i, (a, b) in enumerate(pieces):
        part = None if weights is None else weights[a:b]
        (left if i % 2 == 0 else right).update(logits[a:b], labels[a:b], part)
    left.merge(right)
    assert len(left) == 300
    expected = measure if task == "classification" else measure_regression
    assert left.compute() == (expected(logits, labels, weights),)


def test_ten_million_rows_streamed_in_pieces():
    metrics, again = Metrics(), Metrics()
    rng = np.random.default_rng(0)
    size, rows = 1 << 16, 0
    while rows < 10**7:
        logits = rng.standard_normal(size, dtype=np.float32)
        # Many ties, and many scores without one.
        logits[: size // 2] = np.round(logits[: size // 2], 1)
        labels = (rng.random(size, dtype=np.float32) < 0.3 + 0.1 * logits).astype(np.float32)
        metrics.update(logits, labels)
        rows += size
    logits, labels, _ = metrics.label()
    (values,) = metrics.compute()
    assert isinstance(values, MetricValues)
    assert values.samples == rows
    half = rows // 3
    again.update(logits[half:], labels[half:])
    again.update(logits[:half], labels[:half])
    assert again.compute() == (values,)
    some = slice(0, 10**6)
    part = measure(logits[some], labels[some])
    assert part.auc == pytest.approx(sk.roc_auc_score(labels[some], logits[some]), abs=1e-12)
    wide = logits.astype(np.float64)
    loss = np.mean(np.logaddexp(0.0, np.where(labels > 0, -wide, wide)))
    assert values.log_loss == pytest.approx(loss, rel=1e-12)


def test_each_label_is_measured_by_itself():
    columns = [draw(seed, 50, 0) for seed in range(3)]
    logits, labels = (np.stack(column, axis=1) for column in zip(*columns, strict=True))
    metrics = Metrics(3)
    metrics.update(torch.from_numpy(logits[:20]).bfloat16().float(), labels[:20])
    metrics.update(logits[20:], torch.from_numpy(labels[20:]))
    logits[:20] = torch.from_numpy(logits[:20]).bfloat16().float().numpy()
    assert metrics.compute() == tuple(measure(logits[:, k], labels[:, k]) for k in range(3))
    assert [a.shape for a in metrics.arrays()[:2]] == [(50, 3), (50, 3)]
    assert np.array_equal(metrics.label(1)[0], logits[:, 1])
    assert metrics.arrays()[2] is None


def test_tensors_elsewhere_are_not_looked_at_before_the_arrays_are_asked_for():
    # Numbers on `meta` cannot be read at all.
    metrics = Metrics(2)
    logits, labels = torch.zeros(2, 7, 2, device="meta")
    metrics.update(logits, labels, torch.zeros(7, device="meta"))
    assert len(metrics) == 7
    with pytest.raises(NotImplementedError, match="meta"):
        metrics.arrays()


def test_a_gradient_is_of_no_meaning():
    metrics = Metrics()
    metrics.update(torch.ones(3, 1, requires_grad=True), torch.zeros(3, 1))
    assert metrics.arrays()[0].tolist() == [[1], [1], [1]]


def test_samples_without_a_weight_count_once_beside_those_that_have_one():
    metrics = Metrics()
    metrics.update(np.zeros(2), np.array([0, 1]))
    metrics.update(np.zeros(1), np.array([1]), np.array([3.0]))
    weights = metrics.arrays()[2]
    assert weights is not None
    assert weights.tolist() == [1, 1, 3]
    (values,) = metrics.compute()
    assert isinstance(values, MetricValues)
    assert values.click_rate == 0.8


def test_a_reused_buffer_changes_nothing():
    metrics, buffer = Metrics(), np.zeros(2, np.float32)
    metrics.update(buffer, np.array([0, 1], np.float32))
    metrics.update(torch.from_numpy(buffer), np.array([0, 1], np.float32))
    buffer[:] = 9
    assert metrics.label()[0].tolist() == [0, 0, 0, 0]


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(DatasetError, match="2 scores, but 1 labels"):
        Metrics().update(np.zeros(2, np.float32), np.zeros(1, np.float32))
    with pytest.raises(DatasetError, match="1 weights, but 2 labels"):
        Metrics().update(np.zeros(2), np.zeros(2), np.zeros(1))
    with pytest.raises(DatasetError, match=r"scores of shape \(2, 3\), expected \(2, 2\)"):
        Metrics(2).update(np.zeros((2, 3)), np.zeros((2, 2)))
    with pytest.raises(DatasetError, match=r"labels of shape \(2,\), expected \(2, 2\)"):
        Metrics(2).update(np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(DatasetError, match="1 labels, expected 2"):
        Metrics(2).merge(Metrics())
