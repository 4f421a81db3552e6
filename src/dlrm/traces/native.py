"""The inner loops over streams of ids in C++ (`native/`), compiled at first use; see dlrm.compiler.

Each has a plain counterpart in `plain.py` that gives the same, for machines without a compiler:
`$DLRM_KERNELS=reference` chooses those.
"""

import os
import sys
from ctypes import c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.compiler import BuildError, compiled, load
from dlrm.traces import plain

Ids = NDArray[np.int64]

_ARGUMENTS: dict[str, list[type]] = {
    "renumber": [c_void_p, c_int64, c_void_p],
    "stack_distances": [c_void_p, c_int64, c_int64, c_void_p],
    "from_distances": [c_void_p, c_int64, c_void_p, c_int64, c_void_p],
    "sampler_new": [c_int64],
    "sampler_delete": [c_void_p],
    "sampler_feed": [c_void_p, c_void_p, c_int64],
    "sampler_read": [c_void_p, c_void_p, c_void_p],
}
"""Exported function -> its arguments, as `native/traces.cpp` declares them."""
_RESULTS: dict[str, type | None] = {
    **dict.fromkeys(_ARGUMENTS, c_int64),
    "sampler_new": c_void_p,
    "sampler_delete": None,
}


def renumber(ids: Ids) -> tuple[Ids, int]:
    """Return ids as places among the distinct ones, in order of first access.

    Args:
        ids: (L,) not negative.

    Returns:
        The places (L,), and how many distinct ids there are.

    """
    library = _library()
    if library is None:
        return plain.renumber(ids)
    ids = np.ascontiguousarray(ids, np.int64)
    codes = np.empty_like(ids)
    distinct = library.renumber(ids.ctypes.data, len(ids), codes.ctypes.data)
    return codes, _enough(distinct, len(ids))


def stack_distances(codes: Ids, distinct: int) -> Ids:
    """Return the LRU stack distance of each access, in O(L log L).

    Args:
        codes: (L,) ids below `distinct`, as of `renumber`.
        distinct: How many there are.

    Returns:
        Distances (L,): how many other ids were accessed since the last access of the same id; -1
        for a first access. A cache of c rows that keeps what was used last hits those below c.

    """
    library = _library()
    if library is None:
        return plain.stack_distances(codes, distinct)
    codes = np.ascontiguousarray(codes, np.int64)
    distances = np.empty_like(codes)
    _enough(
        library.stack_distances(codes.ctypes.data, len(codes), distinct, distances.ctypes.data),
        len(codes),
    )
    return distances


def from_distances(distances: Ids, stack: Ids) -> tuple[Ids, Ids]:
    """Return ids that have these stack distances: the inverse of `stack_distances`.

    Args:
        distances: (L,) -1, or a distance that no id has yet, takes a new id: the number of ids seen
            before.
        stack: (S,) the ids 0 to S - 1 seen before, the newest last.

    Returns:
        The ids (L,), and the stack after them.

    """
    library = _library()
    if library is None:
        return plain.from_distances(distances, stack)
    distances = np.ascontiguousarray(distances, np.int64)
    room = np.concatenate([stack, np.empty(len(distances), np.int64)])
    ids = np.empty_like(distances)
    seen = library.from_distances(
        distances.ctypes.data, len(distances), room.ctypes.data, len(stack), ids.ctypes.data
    )
    return ids, room[: _enough(seen, len(distances))].copy()


class Sampler:
    """Stack distances of a stream of any length, from a sample of its ids, in fixed memory.

    Args:
        ids: How many ids are followed, at most; a stream with fewer is measured exactly.

    """

    def __init__(self, ids: int = 1 << 16):
        self._library = _library()
        self._plain = plain.Sampler(ids) if self._library is None else None
        self._state = None if self._library is None else self._library.sampler_new(ids)

    def feed(self, ids: Ids) -> None:
        """Take the next ids (L,) of the stream, none negative."""
        if self._plain is not None:
            self._plain.feed(ids)
            return
        ids = np.ascontiguousarray(ids, np.int64)
        _enough(self._library.sampler_feed(self._state, ids.ctypes.data, len(ids)), len(ids))

    def read(self) -> tuple[NDArray[np.float64], float]:
        """Return the accesses by bin of their distance, first accesses last; see `plain.bin_of`.

        Returns:
            Accesses (bins + 1,), estimated, and the share of the ids that is followed.

        """
        if self._plain is not None:
            return self._plain.read()
        weights, rate = np.empty(plain.BINS + 1), np.empty(1)
        self._library.sampler_read(self._state, weights.ctypes.data, rate.ctypes.data)
        return weights, float(rate[0])

    def __del__(self) -> None:
        if getattr(self, "_state", None) is not None:
            self._library.sampler_delete(self._state)


def _enough(result: int, accesses: int) -> int:
    if result < 0:
        raise MemoryError(f"no memory for a stream of {accesses:,} ids")
    return result


@cache
def _library() -> Any:
    if os.environ.get("DLRM_KERNELS") == "reference":
        return None
    try:
        folder = Path(__file__).parent / "native"
        return load(compiled("traces", folder, what="its kernels for traces"), _ARGUMENTS, _RESULTS)
    except BuildError as error:
        sys.stderr.write(
            f"dlrm: no kernels of its own, traces are read in Python (slow): {error}\n"
        )
        return None
