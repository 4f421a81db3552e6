"""The arrays of a dataset, written to disk piece by piece and hashed on the way."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dlrm.data.bags import Bags, consecutive, take
from dlrm.data.split import Rows
from dlrm.errors import ConfigError, DatasetError
from dlrm.files import sync, sync_folder


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
    """The arrays of all splits, as they grow.

    Args:
        folder: The dataset.
        splits: Names of the splits.
        dense: N, numbers a row.
        tables: T, ids a row, or bags of them.
        truth: Whether the probability behind each label is known.
        bags: Whether a row holds a bag of ids for each table, of any length, or just one id.

    """

    def __init__(
        self,
        folder: Path,
        splits: Iterable[str],
        dense: int,
        tables: int,
        *,
        truth: bool,
        bags: bool = False,
    ):
        if bags and tables < 1:
            raise ConfigError("a dataset with bags of ids needs a categorical feature")
        kinds: dict[str, tuple[str, int | None]] = {
            "dense": ("f4", dense),
            "ids": ("i4", None if bags else tables),
            "labels": ("u1", None),
        }
        if truth:
            kinds["truth"] = ("f4", None)
        if bags:
            kinds["offsets"] = ("i8", None)
        self._tables, self._bags = tables, bags
        self._folder = folder
        self._clicks = dict.fromkeys(splits, 0)
        self._rows = dict.fromkeys(self._clicks, 0)
        self._ids = dict.fromkeys(self._clicks, 0)
        self._arrays = {
            split: {
                name: ArrayWriter(folder, f"{split}/{name}.bin", dtype, columns)
                for name, (dtype, columns) in kinds.items()
            }
            for split in self._clicks
        }
        if bags:
            for writers in self._arrays.values():
                writers["offsets"].write(np.zeros(1, np.int64))

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

    def write(self, split: str, arrays: Mapping[str, NDArray[Any]], rows: Rows) -> None:
        """Append some rows of a block to a split.

        Args:
            split: Its name.
            arrays: By name, the rows of the block: `dense` (n, N), `ids` (n, T), `labels` (n,) and
                `truth` (n,). With bags, `ids` (L,) and `offsets` (n*T + 1,) from 0 to L.
            rows: Which of them: a slice without a step, or numbers.

        Raises:
            DatasetError: The offsets of the block do not fit its rows and ids.

        """
        labels = arrays["labels"][rows]
        chosen = self._chosen(split, arrays, rows) if self._bags else {}
        for name, writer in self._arrays[split].items():
            writer.write(chosen[name] if name in chosen else arrays[name][rows])
        self._rows[split] += len(labels)
        self._clicks[split] += int(np.count_nonzero(labels))

    def _chosen(
        self, split: str, arrays: Mapping[str, NDArray[Any]], rows: Rows
    ) -> dict[str, NDArray[Any]]:
        """Return ids and offsets of some bags of a block, as the split goes on with them."""
        count, block = len(arrays["labels"]), Bags(arrays["ids"], arrays["offsets"])
        if len(block.offsets) != count * self._tables + 1 or (
            block.offsets[0] != 0
            or block.offsets[-1] != len(block.ids)
            or (np.diff(block.offsets) < 0).any()
        ):
            raise DatasetError(
                f"a block of {count} rows of {self._tables} bags with {len(block.ids)} ids has "
                f"{len(block.offsets)} offsets, expected {count * self._tables + 1} that rise from "
                "0 to the number of ids"
            )
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(count)
            ids, offsets = consecutive(block, self._tables, start, max(start, stop))
        else:
            ids, offsets = take(block, self._tables, rows)
        base = self._ids[split]
        self._ids[split] += len(ids)
        return {"ids": ids, "offsets": offsets[1:] + base}

    def finish(self) -> dict[str, dict[str, Any]]:
        """Sync everything; return the entries of the splits in the manifest."""
        records = {}
        for split, arrays in self._arrays.items():
            written = {name: writer.close() for name, writer in arrays.items()}
            sync_folder(self._folder / split)
            counts = {"rows": self._rows[split], "clicks": self._clicks[split]}
            records[split] = {**counts, "arrays": written}
        return records
