"""Arrays written to disk piece by piece, hashed on the way."""

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class ArrayWriter:
    """An array that grows row by row in a file.

    Args:
        folder: The dataset.
        file: Path of the array in it, e.g. `train/ids.bin`.
        dtype: Type of its elements; little-endian on disk.
        columns: Elements of a row; None for one, and an array of one dimension.

    """

    def __init__(self, folder: Path, file: str, dtype: DTypeLike, columns: int | None):
        self._file, self._dtype, self._columns = file, np.dtype(dtype).newbyteorder("<"), columns
        self._rows, self._digest = 0, hashlib.sha256()
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        self._stream = (folder / file).open("wb", buffering=0)

    def write(self, rows: NDArray[Any]) -> None:
        """Append rows: (n, columns), or (n,) without columns."""
        self._rows += len(rows)
        left = memoryview(np.asarray(rows, self._dtype).tobytes())
        self._digest.update(left)
        while left:
            left = left[self._stream.write(left) :]

    def abandon(self) -> None:
        """Close the file as it is: it is going to be deleted."""
        self._stream.close()

    def close(self) -> dict[str, Any]:
        """Sync and close the file; return its entry in the manifest."""
        os.fsync(self._stream.fileno())
        size_bytes = self._stream.tell()
        self._stream.close()
        shape = [self._rows] if self._columns is None else [self._rows, self._columns]
        return {
            "file": self._file,
            "dtype": self._dtype.str,
            "shape": shape,
            "bytes": size_bytes,
            "sha256": self._digest.hexdigest(),
        }
