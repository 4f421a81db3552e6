import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm.metrics import auc, auc_by_segment, user_auc

from .simulation import draw


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    size=st.integers(2, 300),
    ties=st.sampled_from([0, 1]),
    segments=st.integers(1, 40),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_each_segment_has_the_auc_of_its_rows(seed, size, ties, segments, dtype):
    logits, labels = draw(seed, size, ties)
    by = np.random.default_rng(seed).integers(0, segments, size) * 53_687_091
    result = auc_by_segment(logits.astype(dtype), labels, by)
    assert result.segments.tolist() == sorted(set(by.tolist()))
    for segment, samples, clicks, area in zip(
        result.segments, result.samples, result.clicks, result.auc, strict=True
    ):
        inside = by == segment
        assert (samples, clicks) == (inside.sum(), labels[inside].sum())
        alone = auc(logits[inside], labels[inside])
        assert (None if np.isnan(area) else area) == alone


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), size=st.integers(2, 300))
def test_user_auc_is_the_mean_weighted_by_rows(seed, size):
    logits, labels = draw(seed, size, 1)
    users = np.random.default_rng(seed).integers(-1, 30, size)
    result = user_auc(logits, labels, users)
    areas = {}
    for user in range(30):
        inside = users == user
        area = auc(logits[inside], labels[inside]) if inside.any() else None
        if area is not None:
            areas[user] = (area, int(inside.sum()))
    rows = sum(count for _, count in areas.values())
    mean = sum(area * count for area, count in areas.values()) / rows if rows else None
    assert result.gauc == (None if mean is None else pytest.approx(mean, abs=1e-12))
    assert result.gauc_users == len(areas)
    assert result.gauc_users + result.gauc_users_left_out == len(set(users[users >= 0].tolist()))
    assert (result.gauc_samples, result.gauc_samples_left_out) == (rows, size - rows)


def test_without_rows_or_known_users_there_is_none():
    none = user_auc(np.zeros(3), np.array([0, 1, 1]), np.full(3, -1))
    assert none.to_dict() == {
        "gauc": None,
        "gauc_users": 0,
        "gauc_users_left_out": 0,
        "gauc_samples": 0,
        "gauc_samples_left_out": 3,
    }
    assert len(auc_by_segment(np.empty(0), np.empty(0), np.empty(0, int)).auc) == 0


def test_a_hundred_thousand_users_at_once():
    rng = np.random.default_rng(0)
    users = rng.integers(0, 100_000, 10**6)
    taste = rng.normal(size=100_000)
    logits = (taste[users] + rng.normal(size=10**6)).astype(np.float32)
    # A user's own click rate is in the score, but no row of a user is better than another.
    labels = (rng.random(10**6) < 1 / (1 + np.exp(-taste[users]))).astype(np.float32)
    result = user_auc(logits, labels, users)
    assert result.gauc == pytest.approx(0.5, abs=0.003)
    assert auc(logits, labels) == pytest.approx(0.65, abs=0.03)
