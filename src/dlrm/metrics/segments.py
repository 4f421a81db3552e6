"""AUC within each of many segments at once, and its mean over users."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.metrics.ordered import Ordered, check_lengths, ends, ordered
from dlrm.metrics.weights import Weights, checked, counting, with_weight


@dataclass(frozen=True, slots=True)
class SegmentAUC:
    """The AUC within each segment that has a sample; K segments, by rising number."""

    segments: NDArray[np.int64]
    """(K,) their numbers"""
    samples: NDArray[np.int64]
    """(K,) rows, without those of weight 0"""
    clicks: NDArray[np.int64]
    """(K,)"""
    auc: NDArray[np.float64]
    """(K,) NaN where all labels are equal"""
    weights: NDArray[np.float64] | None = None
    """(K,) the sum of their rows' weights; None without any"""


@dataclass(frozen=True, slots=True)
class UserAUC:
    """Per-user AUC, also known as GAUC, and how many users it speaks of."""

    gauc: float | None
    """Mean of the AUC within each user, weighted by the user's samples, or by the sum of their
    weights; None without any user that has both a click and a non-click. (Zhou et al., "Deep
    Interest Network for Click-Through Rate Prediction", KDD 2018; there weighted by impressions
    too.)"""
    gauc_users: int
    """Users with both, whose AUC counts."""
    gauc_users_left_out: int
    """Users with clicks only or with none: their AUC is undefined."""
    gauc_samples: int
    """Samples of the users that count."""
    gauc_samples_left_out: int
    """Samples of the other users, and of no user."""

    def to_dict(self) -> dict[str, float | int | None]:
        """Return the numbers by name."""
        return asdict(self)


def auc_by_segment(
    scores: NDArray[np.floating],
    labels: NDArray[np.number],
    segments: NDArray[np.integer],
    weights: Weights = None,
) -> SegmentAUC:
    """Return the AUC within each segment, ties counting half; one sort for all of them.

    Args:
        scores: (S,) any monotonous score.
        labels: (S,) 0 or 1.
        segments: (S,) number of each row's segment, 0 <= number < 2^31.
        weights: (S,) how often each sample counts; None for once each.

    """
    checked(len(labels), segments=segments)
    if (keep := counting(weights, len(labels))) is not None:
        segments = segments[keep]
        scores, labels, weights = with_weight(scores, labels, weights)
    rows = ordered(scores, labels, segments, weights)
    if len(rows.scores) == 0 or rows.segments is None:
        none = np.empty(0, np.int64)
        return SegmentAUC(none, none, none, np.empty(0), None if weights is None else np.empty(0))
    last = ends(rows)
    clicks_to = np.cumsum(rows.clicks)[last]
    clicks_in = np.diff(clicks_to, prepend=0)
    others_in = np.diff(last + 1 - clicks_to, prepend=0)
    # From rows to segments by way of the groups of equal scores.
    numbers = rows.segments[last]
    first = np.flatnonzero(np.diff(numbers, prepend=-1))
    clicks = np.add.reduceat(clicks_in, first)
    others = np.add.reduceat(others_in, first)
    if rows.weights is not None:
        area, total = _weighted(rows, last, first, clicks * others > 0)
        return SegmentAUC(numbers[first], clicks + others, clicks, area, total)
    groups = np.diff(first, append=len(numbers))
    others_before = np.repeat(np.cumsum(others) - others, groups)
    others_to = np.cumsum(others_in) - others_before
    twice_wins = np.add.reduceat(clicks_in * (2 * others_to - others_in), first)
    pairs = clicks * others
    area = np.divide(twice_wins, 2 * pairs, out=np.full(len(first), np.nan), where=pairs > 0)
    return SegmentAUC(numbers[first], clicks + others, clicks, area)


def _weighted(
    rows: Ordered, last: NDArray[np.intp], first: NDArray[np.intp], defined: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the AUC of each segment (K,), and the sum of its weights.

    Args:
        rows: With weights.
        last: (G,) the last row of each group of equal scores.
        first: (K,) the first group of each segment.
        defined: (K,) whether it has both labels.

    """
    assert rows.weights is not None
    starts = np.append(0, last[:-1] + 1)
    clicks_in = np.add.reduceat(rows.weights * rows.clicks, starts)
    others_in = np.add.reduceat(rows.weights * ~rows.clicks, starts)
    clicks, others = np.add.reduceat(clicks_in, first), np.add.reduceat(others_in, first)
    groups = np.diff(first, append=len(last))
    others_before = np.repeat(np.cumsum(others) - others, groups)
    others_to = np.cumsum(others_in) - others_before
    wins = np.add.reduceat(clicks_in * (others_to - others_in / 2), first)
    area = np.divide(wins, clicks * others, out=np.full(len(first), np.nan), where=defined)
    return np.clip(area, 0.0, 1.0), clicks + others


def user_auc(
    scores: NDArray[np.floating],
    labels: NDArray[np.number],
    users: NDArray[np.integer],
    weights: Weights = None,
) -> UserAUC:
    """Return the mean AUC within users.

    Args:
        scores: (S,) any monotonous score.
        labels: (S,) 0 or 1.
        users: (S,) number of each row's user, < 2^31; negative where there is none, such rows are
            left out.
        weights: (S,) how often each sample counts; None for once each.

    Raises:
        DatasetError: The arrays are not equally long, or a weight is negative or no number.

    """
    check_lengths(scores, labels)
    checked(len(labels), users=users)
    known = users >= 0
    if (keep := counting(weights, len(labels))) is not None:
        known &= keep
    within = auc_by_segment(
        scores[known], labels[known], users[known], None if weights is None else weights[known]
    )
    counts = ~np.isnan(within.auc)
    samples = within.samples[counts]
    size = samples if within.weights is None else within.weights[counts]
    total = int(samples.sum())
    rows = len(labels) if keep is None else int(np.count_nonzero(keep))
    return UserAUC(
        gauc=float(np.sum(within.auc[counts] * size) / size.sum()) if total else None,
        gauc_users=len(samples),
        gauc_users_left_out=len(within.auc) - len(samples),
        gauc_samples=total,
        gauc_samples_left_out=rows - total,
    )
