"""Samples as arrays: what features make of raw rows, and what a dataset keeps of them.

n samples with F list features are two arrays, whatever the lengths: all ids, sample by sample and
feature by feature, and where each list begins. The list of sample i in feature f is
`ids[offsets[i*F + f] : offsets[i*F + f + 1]]`.

Only numpy computes here, because the loader's reader thread does (see dlrm.data.loader).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DatasetError


class Lists(NamedTuple):
    """The lists of n samples in F features."""

    ids: NDArray[np.int32]
    """(L,)"""
    offsets: NDArray[np.int64]
    """(n*F + 1,) from 0 to L, never falling"""


def consecutive(lists: Lists, features: int, start: int, stop: int) -> Lists:
    """Return the lists of samples start to stop; the ids are a view.

    Args:
        lists: Lists of n samples, perhaps mapped from files.
        features: F, 1 or more.
        start: The first sample, 0 <= start <= stop.
        stop: The sample after the last one, at most n.

    Raises:
        DatasetError: Offsets of these samples fall, or point outside the ids.

    """
    offsets = lists.offsets[start * features : stop * features + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    if first < 0 or last > len(lists.ids) or (offsets[1:] < offsets[:-1]).any():
        raise DatasetError(
            f"offsets of the lists of rows {start} to {stop} are wrong: they must rise, within 0 "
            f"and {len(lists.ids)}; `dlrm data describe --verify` tells which file was altered"
        )
    return Lists(lists.ids[first:last], offsets - first)


def join(pieces: Sequence[Lists]) -> Lists:
    """Return the lists of all pieces, one piece after another; there is at least one."""
    bases = np.cumsum([0, *(len(piece.ids) for piece in pieces)])
    moved = [piece.offsets[:-1] + base for piece, base in zip(pieces, bases[:-1], strict=True)]
    return Lists(
        np.concatenate([piece.ids for piece in pieces]), np.concatenate([*moved, bases[-1:]])
    )


def take(lists: Lists, features: int, samples: NDArray[np.integer]) -> Lists:
    """Return the lists of some samples, in the order in which they are named.

    Args:
        lists: Lists of n samples, with offsets that rise from 0.
        features: F, 1 or more.
        samples: (m,) their numbers, 0 <= number < n; one may come again.

    """
    begins = lists.offsets[:-1].reshape(-1, features)
    lengths = np.diff(lists.offsets).reshape(-1, features).take(samples, axis=0)
    offsets = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    # All lists of a sample lie side by side, before as after, so they move by one distance.
    to = offsets[::features]
    places = np.repeat(begins[:, 0].take(samples) - to[:-1], np.diff(to))
    places += np.arange(len(places))
    return Lists(lists.ids.take(places), offsets)


@dataclass(frozen=True, slots=True)
class Encoded:
    """n samples, with N dense features, T1 one-hot and F list features, and K labels."""

    dense: NDArray[np.float32]
    """(n, N)"""
    ids: NDArray[np.int32]
    """(n, T1), of the features with one id a sample"""
    labels: NDArray[Any] | None = None
    """(n, K), 0 or 1 for classification, any numbers for regression; None where nothing is known"""
    lists: Lists | None = None
    """Ids (L,) and offsets (n*F + 1,) of bags and sequences; None where there are none"""
    weights: NDArray[np.float32] | None = None
    """(n,) how much each sample counts; None for 1 each"""
    truth: NDArray[np.float32] | None = None
    """(n,) the probability that each label was drawn with; None where nobody knows"""

    def __len__(self) -> int:
        return self.dense.shape[0]
