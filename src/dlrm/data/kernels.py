"""The inner loops of preparing a log in C++ (`native/`), compiled at first use; see dlrm.compiler.

Each has a counterpart in Polars that gives the same, for machines without a compiler:
`$DLRM_KERNELS=reference` chooses those. Calls from several threads run side by side.
"""

import ctypes
import os
import sys
from ctypes import c_int, c_int64, c_void_p
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlrm.compiler import BuildError, compiled

_ARGUMENTS: dict[str, list[type]] = {
    "parse_criteo": [c_void_p, c_void_p, c_int64, c_int, *[c_void_p] * 4],
    "distinct": [*[c_void_p] * 3, c_int64, *[c_void_p] * 3],
}
"""Exported function -> its arguments, as `native/kernels.cpp` declares them."""

_loaded: list[Any] = []  # the library, or None where there is none, once `_library` was asked
_lock = Lock()


class Columns(NamedTuple):
    """n lines of Criteo text as columns; a missing value is 0."""

    labels: NDArray[np.uint8]
    """(n,)"""
    counts: NDArray[np.int64]
    """(13, n)"""
    categories: NDArray[np.uint32]
    """(26, n)"""
    missing: NDArray[np.bool_]
    """(39, n): counts, then categories"""


def available() -> bool:
    """Whether the kernels can run here; says why not, once."""
    return _library() is not None


def build() -> Path:
    """Return the library, compiling it unless it is there already; may raise a BuildError."""
    return compiled("data", Path(__file__).parent / "native", what="its kernels for raw logs")


def parse_criteo(text: bytes, lines: int, *, labelled: bool) -> Columns | None:
    """Parse Criteo text of so many lines, each ending in a newline.

    Returns:
        The columns (labels are 0 where there are none), or None when a line is not plainly good: a
        bad one, or one with a number of more than 18 digits.

    """
    columns = Columns(
        np.empty(lines, np.uint8),
        np.empty((13, lines), np.int64),
        np.empty((26, lines), np.uint32),
        np.empty((39, lines), np.bool_),
    )
    begin = np.frombuffer(text, np.uint8).ctypes.data if text else None
    good = _library().parse_criteo(
        begin, (begin or 0) + len(text), lines, labelled, *(_at(column) for column in columns)
    )
    return columns if good == lines else None


def distinct(
    values: NDArray[np.uint32],
    missing: NDArray[np.bool_] | None = None,
    weights: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Find the V distinct values of a column, in order of appearance; missing is one.

    Args:
        values: (n,)
        missing: (n,) where a value is missing; None where none is.
        weights: (n,) how often each counts; once when None.

    Returns:
        The row in which each appeared first (V,), its count (V,), and for each row the place of its
        value (n,).

    """
    n = len(values)
    codes, rows, counts = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n, np.int64)
    found = _library().distinct(
        _at(values), _at(missing), _at(weights), n, _at(codes), _at(rows), _at(counts)
    )
    if found < 0:
        raise MemoryError(f"no memory for the distinct values of {n:,} rows")
    return rows[:found], counts[:found], codes


def _at(array: NDArray[Any] | None) -> int | None:
    """Return the address of a contiguous array."""
    if array is None:
        return None
    assert array.flags.c_contiguous
    return array.ctypes.data


def _library() -> Any:
    """Return the loaded library; None where there is none."""
    with _lock:
        if not _loaded:
            _loaded.append(_load())
    return _loaded[0]


def _load() -> Any:
    if os.environ.get("DLRM_KERNELS") == "reference":
        return None
    try:
        library = ctypes.CDLL(str(build()))
    except (BuildError, OSError) as error:
        sys.stderr.write(f"dlrm: no kernels of its own, Polars reads logs (slower): {error}\n")
        return None
    for name, arguments in _ARGUMENTS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, c_int64
    return library
