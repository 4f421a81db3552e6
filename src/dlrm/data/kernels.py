"""The inner loops of preparing a log in C++ (`native/`), compiled at first use; see dlrm.compiler.

Each has a counterpart in Polars that gives the same, for machines without a compiler:
`$DLRM_KERNELS=reference` chooses those. Calls from several threads run side by side.
"""

import os
import sys
from ctypes import c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dlrm.compiler import BuildError, compiled, load
from dlrm.data.threads import Once

_ARGUMENTS: dict[str, list[type]] = {
    "parse_criteo": [c_void_p, c_void_p, c_int64, c_int, *[c_void_p] * 4],
    "distinct": [*[c_void_p] * 3, c_int64, *[c_void_p] * 3],
    "index_keys": [c_void_p, c_int64, c_int64, c_void_p, c_int64],
    "look_up_columns": [c_void_p, c_int64, c_int64, c_int64, c_void_p],
    "look_up_few": [c_void_p, c_int64, c_int64, *[c_void_p] * 3],
}
"""Exported function -> its arguments, as `native/kernels.cpp` declares them."""

ENTRY = np.dtype([("key", np.uint32), ("id", np.int32)])
"""An entry of a hash table, `Entry` in `native/lookup.h`; its id is -1 where it is empty."""
COLUMN = np.dtype(
    [
        ("values", np.uintp),
        ("states", np.uintp),
        ("entries", np.uintp),
        ("capacity", np.int64),
        ("missing", np.int32),
        ("other", np.int32),
        ("modulus", np.uint32),
    ],
    align=True,
)
"""A column and the table that its values are looked up in, `Column` in `native/lookup.h`."""
PRESENT, MISSING, UNSEEN = 0, 1, 2
"""States of a value in a column that is looked up: UNSEEN is certainly in no table."""
THREAD_LOOKUPS = 1 << 15
"""Values that are worth a thread of their own."""

_loaded: Once[Any] = Once()
"""The library, or None where there is none."""


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
    return compiled(
        "data",
        Path(__file__).parent / "native",
        ["-pthread"],
        link=["-pthread"],
        what="its kernels for raw logs",
    )


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
    number = _library().distinct(
        _at(values), _at(missing), _at(weights), n, _at(codes), _at(rows), _at(counts)
    )
    if number < 0:
        raise MemoryError(f"no memory for the distinct values of {n:,} rows")
    return rows[:number], counts[:number], codes


def index_keys(keys: NDArray[np.uint32], missing: int | None) -> NDArray[np.void]:
    """Return a hash table in which the id of each key is its place.

    Args:
        keys: (V,), all different; 0 at `missing`.
        missing: Place that stands for a missing value and not for its key; None where there is
            none.

    Returns:
        Entries of type ENTRY, a third of them empty.

    """
    entries = np.empty(len(keys) * 3 // 2 + 2, ENTRY)
    at = -1 if missing is None else missing
    _library().index_keys(_at(keys), len(keys), at, _at(entries), len(entries))
    return entries


def look_up_columns(columns: NDArray[np.void], rows: int, threads: int) -> NDArray[np.int32]:
    """Look up the values of T columns, each in a table of its own.

    Returns:
        ids (n, T).

    """
    ids = np.empty((rows, len(columns)), np.int32)
    shared = max(1, min(threads, ids.size // THREAD_LOOKUPS))
    _library().look_up_columns(_at(columns), len(columns), rows, shared, _at(ids))
    return ids


def look_up_few(
    columns: NDArray[np.void],
    rows: int,
    values: NDArray[np.uint32],
    states: NDArray[np.uint8] | None,
) -> NDArray[np.int32]:
    """Look up a few values of T columns, each in a table of its own.

    Args:
        columns: (T,) whose own values and states are not read.
        rows: n.
        values: (T * n,), column by column.
        states: (T * n,) theirs; None where all are PRESENT.

    Returns:
        ids (n, T).

    """
    ids = np.empty((rows, len(columns)), np.int32)
    _library().look_up_few(_at(columns), len(columns), rows, _at(values), _at(states), _at(ids))
    return ids


def _at(array: NDArray[Any] | None) -> int | None:
    if array is None:
        return None
    assert array.flags.c_contiguous
    return array.ctypes.data


def _library() -> Any:
    return _loaded.get(_load)


def _load() -> Any:
    if os.environ.get("DLRM_KERNELS") == "reference":
        return None
    try:
        return load(build(), _ARGUMENTS, dict.fromkeys(_ARGUMENTS, c_int64))
    except BuildError as error:
        sys.stderr.write(f"dlrm: no kernels of its own, Polars reads logs (slower): {error}\n")
        return None
