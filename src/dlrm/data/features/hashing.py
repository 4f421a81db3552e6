"""Values hashed to rows of a table."""

import zlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.vocabulary import Vocabulary, distinct

_MISSING = "\x1em"
"""What no text of a file is, once it is escaped; see dlrm.data.features.category."""


def hashed(keys: pl.Series, rows: int) -> NDArray[np.int32]:
    """Return the row of each key: its CRC-32 modulo `rows`, the same on every machine."""
    groups, codes = distinct(keys)
    hashes = [hash_of(key) for key in groups["value"]]
    return (np.array(hashes, np.uint32)[codes] % np.uint32(rows)).astype(np.int32)


def hash_of(key: str | None) -> int:
    """Return the CRC-32 of a key."""
    return zlib.crc32((_MISSING if key is None else key).encode())


def hash_vocabulary(name: str, rows: int) -> Vocabulary:
    """Return names for the rows that values are hashed to; nobody knows which values those are."""
    names = [f"hash {row}" for row in range(rows - 1)]
    return Vocabulary(name, pl.DataFrame({"value": names, "count": np.zeros(rows - 1, np.int64)}))
