"""Bags of ids one after another, as multi-hot batches and datasets hold them.

n samples with a bag for each of T tables are two arrays, whatever the lengths of the bags: all ids,
sample by sample and table by table, and where each bag begins. The bag of sample i in table t is
`ids[offsets[i*T + t] : offsets[i*T + t + 1]]`.

Only numpy computes here, because the loader's reader thread does (see dlrm.data.loader).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlrm.errors import DatasetError


class Bags(NamedTuple):
    """The bags of n samples in T tables."""

    ids: NDArray[np.int32]
    """(L,)"""
    offsets: NDArray[np.int64]
    """(n*T + 1,) from 0 to L, never falling"""


def consecutive(bags: Bags, tables: int, start: int, stop: int) -> Bags:
    """Return the bags of samples start to stop; the ids are a view.

    Args:
        bags: Of n samples, perhaps mapped from files.
        tables: T, 1 or more.
        start: The first sample, 0 <= start <= stop.
        stop: The sample after the last one, at most n.

    Raises:
        DatasetError: Offsets of these samples fall, or point outside the ids.

    """
    offsets = bags.offsets[start * tables : stop * tables + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    if first < 0 or last > len(bags.ids) or (offsets[1:] < offsets[:-1]).any():
        raise DatasetError(
            f"offsets of the bags of rows {start} to {stop} are wrong: they must rise, within 0 "
            f"and {len(bags.ids)}; `dlrm data describe --verify` tells which file was altered"
        )
    return Bags(bags.ids[first:last], offsets - first)


def join(pieces: Sequence[Bags]) -> Bags:
    """Return the bags of all pieces, one piece after another; there is at least one."""
    bases = np.cumsum([0, *(len(piece.ids) for piece in pieces)])
    moved = [piece.offsets[:-1] + base for piece, base in zip(pieces, bases[:-1], strict=True)]
    return Bags(
        np.concatenate([piece.ids for piece in pieces]), np.concatenate([*moved, bases[-1:]])
    )


def take(bags: Bags, tables: int, samples: NDArray[np.integer]) -> Bags:
    """Return the bags of some samples, in the order in which they are named.

    Args:
        bags: Of n samples, with offsets that rise from 0.
        tables: T, 1 or more.
        samples: (m,) their numbers, 0 <= number < n; one may come again.

    """
    begins = bags.offsets[:-1].reshape(-1, tables)
    lengths = np.diff(bags.offsets).reshape(-1, tables).take(samples, axis=0)
    offsets = np.zeros(lengths.size + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    # All bags of a sample lie side by side, before as after, so they move by one distance.
    to = offsets[::tables]
    places = np.repeat(begins[:, 0].take(samples) - to[:-1], np.diff(to))
    places += np.arange(len(places))
    return Bags(bags.ids.take(places), offsets)


def single(bags: Bags, tables: int, table: int) -> NDArray[np.int32] | None:
    """Return the id of each sample in a table, (n,); None unless all its bags hold just one."""
    begins = bags.offsets[:-1].reshape(-1, tables)[:, table]
    ends = bags.offsets[1:].reshape(-1, tables)[:, table]
    return bags.ids[begins] if (ends - begins == 1).all() else None
