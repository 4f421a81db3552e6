from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from dlrm.errors import DatasetError
from dlrm.metrics import Metrics, measure

from .simulation import draw


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    cuts=st.lists(st.integers(0, 300), max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_pieces_and_merges_give_the_metrics_of_the_whole_bit_for_bit(seed, cuts, order):
    logits, labels = draw(seed, 300, 2)
    pieces = list(pairwise([0, *sorted(cuts), 300]))
    order.shuffle(pieces)
    left, right = Metrics(), Metrics()
    for i, (a, b) in enumerate(pieces):
        (left if i % 2 == 0 else right).update(logits[a:b], labels[a:b])
    left.merge(right)
    assert len(left) == 300
    assert left.compute() == measure(logits, labels)


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
    logits, labels = metrics.arrays()
    values = metrics.compute()
    assert values.samples == rows
    half = rows // 3
    again.update(logits[half:], labels[half:])
    again.update(logits[:half], labels[:half])
    assert again.compute() == values
    some = slice(0, 10**6)
    part = measure(logits[some], labels[some])
    assert part.auc == pytest.approx(sk.roc_auc_score(labels[some], logits[some]), abs=1e-12)
    wide = logits.astype(np.float64)
    loss = np.mean(np.logaddexp(0.0, np.where(labels > 0, -wide, wide)))
    assert values.log_loss == pytest.approx(loss, rel=1e-12)


def test_a_reused_buffer_changes_nothing():
    metrics, buffer = Metrics(), np.zeros(2, np.float32)
    metrics.update(buffer, np.array([0, 1], np.float32))
    buffer[:] = 9
    assert metrics.arrays()[0].tolist() == [0, 0]


def test_a_score_without_a_label_is_refused():
    with pytest.raises(DatasetError, match="2 scores, but 1 labels"):
        Metrics().update(np.zeros(2, np.float32), np.zeros(1, np.float32))
