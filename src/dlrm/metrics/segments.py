"""AUC within each of many segments at once, and its mean over users."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DatasetError
from dlrm.metrics.ordered import check_lengths, ends, ordered


@dataclass(frozen=True, slots=True)
class SegmentAUC:
    """The AUC within each segment that has a sample; K segments, by rising number."""

    segments: NDArray[np.int64]
    """(K,) their numbers"""
    samples: NDArray[np.int64]
    """(K,)"""
    clicks: NDArray[np.int64]
    """(K,)"""
    auc: NDArray[np.float64]
    """(K,) NaN where all labels are equal"""


@dataclass(frozen=True, slots=True)
class UserAUC:
    """Per-user AUC, also known as GAUC, and how many users it speaks of."""

    gauc: float | None
    """Mean of the AUC within each user, weighted by the user's samples; None without any user that
    has both a click and a non-click. (Zhou et al., "Deep Interest Network for Click-Through Rate
    Prediction", KDD 2018; there weighted by impressions too.)"""
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
    scores: NDArray[np.floating], labels: NDArray[np.number], segments: NDArray[np.integer]
) -> SegmentAUC:
    """Return the AUC within each segment, ties counting half; one sort for all of them.

    Args:
        scores: (S,) any monotonous score.
        labels: (S,) 0 or 1.
        segments: (S,) number of each row's segment, 0 <= number < 2^31.

    """
    rows = ordered(scores, labels, segments)
    if len(rows.scores) == 0 or rows.segments is None:
        none = np.empty(0, np.int64)
        return SegmentAUC(none, none, none, np.empty(0))
    last = ends(rows)
    clicks_to = np.cumsum(rows.clicks)[last]
    clicks_in = np.diff(clicks_to, prepend=0)
    others_in = np.diff(last + 1 - clicks_to, prepend=0)
    # From rows to segments by way of the groups of equal scores.
    numbers = rows.segments[last]
    first = np.flatnonzero(np.diff(numbers, prepend=-1))
    clicks = np.add.reduceat(clicks_in, first)
    others = np.add.reduceat(others_in, first)
    groups = np.diff(first, append=len(numbers))
    others_before = np.repeat(np.cumsum(others) - others, groups)
    others_to = np.cumsum(others_in) - others_before
    twice_wins = np.add.reduceat(clicks_in * (2 * others_to - others_in), first)
    pairs = clicks * others
    area = np.divide(twice_wins, 2 * pairs, out=np.full(len(first), np.nan), where=pairs > 0)
    return SegmentAUC(numbers[first], clicks + others, clicks, area)


def user_auc(
    scores: NDArray[np.floating], labels: NDArray[np.number], users: NDArray[np.integer]
) -> UserAUC:
    """Return the mean AUC within users.

    Args:
        scores: (S,) any monotonous score.
        labels: (S,) 0 or 1.
        users: (S,) number of each row's user, < 2^31; negative where there is none, such rows are
            left out.

    Raises:
        DatasetError: The arrays are not equally long.

    """
    check_lengths(scores, labels)
    if len(users) != len(labels):
        problem = f"{len(users):,} users, but {len(labels):,} labels"
        raise DatasetError(f"{problem}: expected one of either for each row")
    known = users >= 0
    found = auc_by_segment(scores[known], labels[known], users[known])
    counts = ~np.isnan(found.auc)
    samples = found.samples[counts]
    total = int(samples.sum())
    return UserAUC(
        gauc=float(np.sum(found.auc[counts] * samples) / total) if total else None,
        gauc_users=len(samples),
        gauc_users_left_out=len(found.auc) - len(samples),
        gauc_samples=total,
        gauc_samples_left_out=len(labels) - total,
    )
