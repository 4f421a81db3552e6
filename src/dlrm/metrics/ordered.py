"""Rows of predictions sorted by segment, score and label: the one order in which sums are taken.

Equal sets of rows give equal sums, bit for bit, in whatever order or pieces they came.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DivergedError
from dlrm.metrics.weights import Weights, checked

_SIGN = np.uint32(1 << 31)


class Ordered(NamedTuple):
    """S rows by segment, within it by score, within that by label, within that by weight."""

    scores: NDArray[np.floating]
    """(S,)"""
    clicks: NDArray[np.bool_]
    """(S,)"""
    segments: NDArray[np.int64] | None
    """(S,) None where all rows are one segment"""
    weights: NDArray[np.float64] | None = None
    """(S,) None where all rows count alike"""


def ordered(
    scores: NDArray[np.floating],
    labels: NDArray[np.number],
    segments: NDArray[np.integer] | None = None,
    weights: Weights = None,
) -> Ordered:
    """Sort rows.

    Args:
        scores: (S,) any monotonous score.
        labels: (S,) 0 or 1.
        segments: (S,) number of each row's segment, 0 <= number < 2^31.
        weights: (S,) positive, how much each row counts; None for all alike, which sorts faster.

    Raises:
        DatasetError: The arrays are not equally long.
        DivergedError: A score is no number.

    """
    checked(len(labels), scores=scores)
    check_numbers(scores)
    clicks = labels != 0
    if scores.dtype == np.float32 and weights is None:
        # A row is one integer: sorting those is far faster than sorting rows by three keys.
        bits = scores.view(np.uint32)
        keys = (bits ^ _flips(bits >> 31 == 1)).astype(np.uint64)
        keys = keys << np.uint64(1) | clicks
        if segments is not None:
            keys |= segments.astype(np.uint64) << np.uint64(33)
        keys.sort()
        bits = (keys >> np.uint64(1)).astype(np.uint32)
        return Ordered(
            (bits ^ _flips(bits >> 31 == 0)).view(np.float32),
            (keys & np.uint64(1)).astype(np.bool_),
            None if segments is None else (keys >> np.uint64(33)).astype(np.int64),
        )
    # The last key is the first to sort by.
    keys = (weights, clicks, scores, segments)
    order = np.lexsort([key for key in keys if key is not None])
    return Ordered(
        scores[order],
        clicks[order],
        None if segments is None else segments[order].astype(np.int64),
        None if weights is None else weights[order].astype(np.float64),
    )


def check_numbers(scores: NDArray[np.floating]) -> None:
    """Raise a DivergedError unless all scores are numbers."""
    if bad := int(np.count_nonzero(np.isnan(scores))):
        problem = f"{bad:,} of {len(scores):,} scores are not numbers: the model has diverged"
        raise DivergedError(f"{problem}; try a smaller optim.lr")


def ends(rows: Ordered) -> NDArray[np.intp]:
    """Return the last row of each group of equal scores within a segment (G,)."""
    differ = rows.scores[1:] != rows.scores[:-1]
    if rows.segments is not None:
        differ |= rows.segments[1:] != rows.segments[:-1]
    return np.append(np.flatnonzero(differ), len(rows.scores) - 1)


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)) in float64, without overflow."""
    x = logits.astype(np.float64)
    decay = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, decay) / (1.0 + decay)


def cross_entropy(logits: NDArray[np.floating], clicks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return -log of the probability given to what happened, in nats (S,).

    log(1 + exp(-x)) for a click and log(1 + exp(x)) for none, finite for every finite logit.
    """
    x = np.where(clicks, -logits, logits).astype(np.float64)
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def _flips(negative: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Return what maps the bits of a float32 to an integer of the same order, or back, by XOR."""
    return np.where(negative, ~np.uint32(0), _SIGN)
