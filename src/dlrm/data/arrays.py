"""The arrays of a dataset, written to disk piece by piece and hashed on the way."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dlrm.data.encoded import Encoded, consecutive, take
from dlrm.data.split import Rows
from dlrm.data.store import LIST_IDS, LIST_OFFSETS, array_file, array_layout, map_array
from dlrm.errors import DatasetError
from dlrm.files import sync, sync_folder
from dlrm.schema import Schema, Task


class ArrayWriter:
    """An array that grows row by row in a file."""

    def __init__(self, folder: Path, file: str, dtype: DTypeLike, columns: int | None):
        self._file, self._dtype, self._columns = file, np.dtype(dtype).newbyteorder("<"), columns
        self._rows, self._digest = 0, hashlib.sha256()
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        self._stream = (folder / file).open("wb", buffering=0)

    def write(self, rows: NDArray[Any]) -> None:
        """Append rows: (n, columns), or (n,) without columns."""
        self._rows += len(rows)
        left = np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data
        self._digest.update(left)
        while left:
            left = left[self._stream.write(left) :]

    def abandon(self) -> None:
        """Close the file as it is: it is going to be deleted."""
        self._stream.close()

    def close(self) -> dict[str, Any]:
        """Sync and close the file; return its entry in the manifest."""
        sync(self._stream.fileno())
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


class SplitWriter:
    """The arrays of all splits, as they grow."""

    def __init__(
        self,
        folder: Path,
        splits: Iterable[str],
        schema: Schema,
        *,
        weights: bool = False,
        truth: bool = False,
    ):
        self._folder, self._schema = folder, schema
        layout = array_layout(schema, weights=weights, truth=truth)
        self._arrays = {
            split: {
                name: ArrayWriter(folder, array_file(split, name), dtype, columns)
                for name, (dtype, columns) in layout.items()
            }
            for split in splits
        }
        self._ids = dict.fromkeys(self._arrays, 0)
        if LIST_OFFSETS in layout:
            for writers in self._arrays.values():
                writers[LIST_OFFSETS].write(np.zeros(1, np.int64))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for arrays in self._arrays.values():
            for writer in arrays.values():
                writer.abandon()

    def write(self, split: str, block: Encoded, rows: Rows) -> None:
        """Append some rows of a block of n rows to a split: a slice without a step, or numbers.

        Raises:
            DatasetError: The block lacks labels, lists, weights or the truth.

        """
        writers = self._arrays[split]
        for name, writer in writers.items():
            if name in (LIST_IDS, LIST_OFFSETS):
                continue
            array = getattr(block, name)
            if array is None:
                raise DatasetError(f"a block of {len(block)} rows has no {name}")
            writer.write(array[rows])
        if LIST_OFFSETS in writers:
            if block.lists is None:
                raise DatasetError(f"a block of {len(block)} rows has no lists of ids")
            features = len(self._schema.list_features)
            if isinstance(rows, slice):
                start, stop, _ = rows.indices(len(block))
                lists = consecutive(block.lists, features, start, max(start, stop))
            else:
                lists = take(block.lists, features, rows)
            writers[LIST_IDS].write(lists.ids)
            writers[LIST_OFFSETS].write(lists.offsets[1:] + self._ids[split])
            self._ids[split] += len(lists.ids)

    def finish(self) -> dict[str, dict[str, Any]]:
        """Sync everything; return the entries of the splits in the manifest."""
        records = {}
        for split, arrays in self._arrays.items():
            written = {name: writer.close() for name, writer in arrays.items()}
            sync_folder(self._folder / split)
            labels = map_array(self._folder, written["labels"])
            records[split] = {
                "rows": len(labels),
                **_label_numbers(labels, self._schema.labels, self._schema.task),
                "arrays": written,
            }
        return records


def _label_numbers(labels: NDArray[Any], names: Sequence[str], task: Task) -> dict[str, Any]:
    """Return `positives` by label, or of real numbers `mean`, `min` and `max`, of labels (n, K)."""
    if task == "classification":
        positives = np.count_nonzero(labels, axis=0).tolist()
        return {"positives": dict(zip(names, positives, strict=True))}
    if not len(labels):
        return {key: dict.fromkeys(names) for key in ("mean", "min", "max")}
    columns = {
        "mean": labels.mean(axis=0, dtype=np.float64),
        "min": labels.min(axis=0),
        "max": labels.max(axis=0),
    }
    return {
        key: dict(zip(names, map(float, column), strict=True)) for key, column in columns.items()
    }
