"""AUC: of all rows, within each of many segments, its mean over users, and what each row adds."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.metrics.ordered import Ordered, ends, ordered
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


def auc(
    scores: NDArray[np.floating], labels: NDArray[np.number], weights: Weights = None
) -> float | None:
    """Return the area under the ROC curve, exactly, ties counting half.

    Returns:
        The Mann-Whitney statistic in [0, 1]; None when all labels are equal.

    """
    scores, labels, weights = with_weight(scores, labels, weights)
    return auc_of(ordered(scores, labels, weights=weights))


def auc_of(rows: Ordered) -> float | None:
    """Return the AUC of rows that are one segment; None when all labels are equal."""
    if not len(rows.scores):
        return None
    area = float(_areas(rows)[2][0])
    return None if np.isnan(area) else area


def auc_by_segment(
    scores: NDArray[np.floating],
    labels: NDArray[np.number],
    segments: NDArray[np.integer],
    weights: Weights = None,
) -> SegmentAUC:
    """Return the AUC within each segment, ties counting half; one sort for all of them.

    `segments` (S,) are numbers from 0 to below 2^31.
    """
    checked(len(labels), segments=segments)
    if (keep := counting(weights, len(labels))) is not None:
        segments = segments[keep]
        scores, labels, weights = with_weight(scores, labels, weights)
    rows = ordered(scores, labels, segments, weights)
    if len(rows.scores) == 0 or rows.segments is None:
        none = np.empty(0, np.int64)
        return SegmentAUC(none, none, none, np.empty(0), None if weights is None else np.empty(0))
    clicks, others, area, total = _areas(rows)
    segments = np.unique(rows.segments)
    return SegmentAUC(segments, clicks + others, clicks, area, total)


def _areas(
    rows: Ordered,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64] | None]:
    """Return clicks, other rows, AUC and the sum of weights, if any, of each segment (K,).

    A click beats all other rows of lower scores, and half of those of its own score. Without
    weights twice that is an integer, so that nothing is rounded before the division.
    """
    last = ends(rows)
    first = np.zeros(1, np.intp)
    if rows.segments is not None:
        first = np.flatnonzero(np.diff(rows.segments[last], prepend=-1))
    clicks_to = np.cumsum(rows.clicks)[last]
    # From rows to segments by way of the groups of equal scores.
    counts_in = np.diff(clicks_to, prepend=0), np.diff(last + 1 - clicks_to, prepend=0)
    clicks, others = (np.add.reduceat(counts, first) for counts in counts_in)
    clicks_in, others_in = counts_in
    clicks_sum, others_sum = clicks, others
    if rows.weights is not None:
        starts = np.append(0, last[:-1] + 1)
        clicks_in, others_in = (
            np.add.reduceat(rows.weights * kind, starts) for kind in (rows.clicks, ~rows.clicks)
        )
        clicks_sum, others_sum = (np.add.reduceat(sums, first) for sums in (clicks_in, others_in))
    others_to = np.cumsum(others_in)
    if len(first) > 1:
        groups = np.diff(first, append=len(last))
        others_to = others_to - np.repeat(np.cumsum(others_sum) - others_sum, groups)
    twice_wins = np.add.reduceat(clicks_in * (2 * others_to - others_in), first)
    area = np.full(len(first), np.nan)
    pairs = clicks_sum * others_sum
    np.divide(twice_wins, 2 * pairs, out=area, where=clicks * others > 0)
    if rows.weights is None:
        return clicks, others, area, None
    return clicks, others, np.clip(area, 0.0, 1.0), clicks_sum + others_sum


def placements(
    scores: NDArray[np.floating],
    clicks: NDArray[np.bool_],
    weights: Weights = None,
    order: NDArray[np.intp] | None = None,
) -> NDArray[np.float64] | None:
    """Return of each click the share of other rows below it, and of those that of clicks above.

    Args:
        scores: (S,) any monotonous score.
        clicks: (S,) which rows are clicks.
        weights: (S,) how much each counts; None for once each.
        order: (S,) what sorts the scores, where somebody knows it.

    Returns:
        (S,), ties counting half; the mean over clicks is the AUC, as is that over the others. None
        where one kind is missing.

    """
    order = np.argsort(scores, kind="stable") if order is None else order
    scores, by_score = scores[order], clicks[order]
    if not len(order):
        return None
    last = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(order) - 1)
    counts = 1 if weights is None else weights[order]
    clicks_to, others_to = (np.cumsum(counts * kind)[last] for kind in (by_score, ~by_score))
    if not clicks_to[-1] or not others_to[-1]:
        return None
    # In the middle of equal scores.
    others_below = (others_to - np.diff(others_to, prepend=0) / 2) / others_to[-1]
    clicks_above = 1.0 - (clicks_to - np.diff(clicks_to, prepend=0) / 2) / clicks_to[-1]
    size = np.diff(last, prepend=-1)
    shares = np.empty(len(order))
    shares[order] = np.where(by_score, np.repeat(others_below, size), np.repeat(clicks_above, size))
    return shares


def user_auc(
    scores: NDArray[np.floating],
    labels: NDArray[np.number],
    users: NDArray[np.integer],
    weights: Weights = None,
) -> UserAUC:
    """Return the mean AUC within users.

    Rows of no user are left out.

    Raises:
        DatasetError: The arrays are not equally long, or a weight is negative or no number.

    """
    checked(len(labels), scores=scores, users=users)
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
