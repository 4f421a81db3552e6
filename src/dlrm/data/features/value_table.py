"""The distinct values of a table, in memory or in a file that is read once; or hashed to rows."""

import os
import shutil
import zlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.threads import check_pool
from dlrm.data.vocabulary import Vocabulary, distinct
from dlrm.errors import DatasetError
from dlrm.files import new_beside, replacing, sync_file


class ValueTable:
    """The distinct values of one category, or of all columns that share a table.

    The frame has `value` and `count`, and `label_sum` where labels are summed: values with a row of
    their own first, which are `kept`. Where it is None it is read from the file.
    """

    def __init__(
        self,
        name: str,
        frame: pl.DataFrame | None,
        *,
        kept: int,
        values: int | None = None,
        file: Path | None = None,
    ):
        self.name, self.kept, self.file = name, kept, file
        self._frame = frame
        self.values = frame.height if values is None and frame is not None else values or 0

    @property
    def frame(self) -> pl.DataFrame:
        """All values.

        Raises:
            DatasetError: The file is missing, damaged, or of another dataset.

        """
        return self.values_by_id.frame

    @property
    def num_embeddings(self) -> int:
        """Rows of the table: one for each value that is kept, and one for all others."""
        return self.kept + 1

    @cached_property
    def values_by_id(self) -> Vocabulary:
        """All values, those with a row of their own first."""
        # Two threads may read it at the same time, and get the same.
        frame = _read(self.file) if self._frame is None and self.file else self._frame
        assert frame is not None
        if frame.height != self.values:
            raise DatasetError(
                f"the vocabulary of {self.name} in {self.file} has {frame.height} values, expected "
                f"{self.values}; prepare the dataset again"
            )
        return Vocabulary(self.name, frame)

    def places(self, values: pl.Series) -> NDArray[np.int32]:
        """Return the place of each value (n,) among all values; their number where it is new."""
        return self.values_by_id.ids(values)

    def ids(self, values: pl.Series) -> NDArray[np.int32]:
        """Return the id of each value (n,); `kept` where it has no row of its own."""
        places = self.places(values)
        return places if self.kept == self.values else np.minimum(places, np.int32(self.kept))

    def vocabulary(self) -> Vocabulary:
        """Return the values with a row of their own."""
        if self.kept == self.values and self.frame.columns == ["value", "count"]:
            return self.values_by_id
        return Vocabulary(self.name, self.frame.head(self.kept).select("value", "count"))

    def save(self, target: Path) -> None:
        """Write the values to a file, or make it the same as their file."""
        if self.file is not None:
            link(self.file, target)
            return
        with target.open("wb") as stream:
            self.frame.write_parquet(stream, compression="zstd")
        sync_file(target)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values, without the frame."""
        return {"name": self.name, "kept": self.kept, "values": self.values}

    @classmethod
    def from_dict(cls, values: dict[str, Any], file: Path) -> "ValueTable":
        """Rebuild what `to_dict` returned; the file is read when it is needed."""
        return cls(values["name"], None, kept=values["kept"], values=values["values"], file=file)


def _read(file: Path) -> pl.DataFrame:
    check_pool()
    try:
        return pl.read_parquet(file, glob=False)
    except FileNotFoundError:
        raise DatasetError(f"{file} is missing; prepare the dataset again") from None
    except pl.exceptions.PolarsError as error:
        raise DatasetError(f"{file} is damaged ({error}); prepare the dataset again") from error


def link(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where the file system has no links."""
    if target.exists() and target.samefile(source):
        return
    try:
        # The name is free: an empty file has just had it.
        (temporary := new_beside(target)).unlink()
        try:
            os.link(source, temporary)
            temporary.replace(target)
        except FileNotFoundError:
            raise
        except OSError:
            with replacing(target) as copy:
                shutil.copyfile(source, copy)
        finally:
            temporary.unlink(missing_ok=True)
    except FileNotFoundError:
        raise DatasetError(f"{source} is missing; prepare the dataset again") from None


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
