"""The values of a category and their ids.

A table has a row for each value that is kept and a last row "other", for values that are too rare
and for values that were never seen, so num_embeddings = num_ids + 1. Missing (null) is a value like
any other.
"""

import os
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data import kernels
from dlrm.data.index import Index, IntegerIndex, Keys, look_up, make_index, small_integers
from dlrm.data.threads import Once, check_pool
from dlrm.errors import DatasetError, unknown
from dlrm.files import new_beside, replacing, sync_file

IdOrder = Literal["appearance", "frequency"]
ID_ORDERS: tuple[IdOrder, ...] = ("appearance", "frequency")
_MISSING = "\x1em"
"""What no text of a file is, once it is escaped; see dlrm.data.features.category."""


def distinct(
    values: pl.Series, counts: pl.Series | None = None
) -> tuple[pl.DataFrame, NDArray[np.int32]]:
    """Return the distinct values in order of appearance, and for each row the place of its value.

    Args:
        values: n values.
        counts: How often each of them counts; once when None.

    Returns:
        A frame of `value` and `count` (V rows), and codes (n,) with 0 <= code < V.

    """
    numbers = small_integers(values) if kernels.available() else None
    if numbers is None:
        return _distinct_with_polars(values, counts)
    missing = values.is_null().to_numpy() if values.null_count() else None
    weights = None if counts is None else counts.cast(pl.Int64).to_numpy()
    rows, sums, codes = kernels.distinct(numbers, missing, weights)
    return pl.DataFrame({"value": values.gather(rows), "count": sums}), codes


def _distinct_with_polars(
    values: pl.Series, counts: pl.Series | None = None
) -> tuple[pl.DataFrame, NDArray[np.int32]]:
    """Do the same without the kernels, and for any values."""
    rows = values.alias("value").to_frame()
    groups = (
        rows.with_columns(pl.lit(1).alias("count") if counts is None else counts.alias("count"))
        .with_row_index("row")
        .group_by("value", maintain_order=True)
        .agg("row", pl.col("count").cast(pl.Int64).sum(), pl.len().alias("rows"))
    )
    codes = np.empty(len(values), np.int32)
    if len(values):
        places = np.arange(len(groups), dtype=np.int32)
        codes[groups["row"].explode().to_numpy()] = np.repeat(places, groups["rows"].to_numpy())
    return groups.select("value", "count"), codes


def fold(values: pl.Series, max_rows: int | None) -> pl.Series:
    """Return values modulo `max_rows`, as the original's max-ind-range; None changes nothing.

    Missing becomes 0 first, as in the original, so that a table has at most `max_rows` values.
    Texts are hashed (CRC-32) before. The remainders are Int64.
    """
    if max_rows is None:
        return values
    if values.dtype == pl.String:
        groups, codes = distinct(values)
        hashes = [zlib.crc32((text or "").encode()) if text else 0 for text in groups["value"]]
        values = pl.Series(values.name, np.array(hashes, np.uint32)[codes], pl.UInt32)
    wide = values if values.dtype == pl.UInt64 else values.cast(pl.Int64)
    return (wide.fill_null(0) % max_rows).cast(pl.Int64)


class Vocabulary:
    """The values of one category, or of all columns that share a table.

    Args:
        name: Name of the feature.
        frame: `value` (null is missing), `count`, and `label_sum` where labels are summed, a row
            each; those with an id come first, and it is their row number. None reads the file.
        num_ids: How many have an id; None for all.
        values: How many there are, where the frame is in a file.
        file: Where they are.

    """

    def __init__(
        self,
        name: str,
        frame: pl.DataFrame | None,
        *,
        num_ids: int | None = None,
        values: int = 0,
        file: Path | None = None,
    ):
        self.name, self.file, self._frame = name, file, frame
        self.values = values if frame is None else frame.height
        self.num_ids = self.values if num_ids is None else num_ids
        self._index: Once[Index] = Once()

    @property
    def frame(self) -> pl.DataFrame:
        """All values.

        Raises:
            DatasetError: The file is missing, damaged, or of another dataset.

        """
        # Two threads may read it at the same time, and get the same.
        if self._frame is None and self.file is not None:
            frame = _read(self.file)
            if frame.height != self.values:
                raise DatasetError(
                    f"the vocabulary of {self.name} in {self.file} has {frame.height} values, "
                    f"expected {self.values}; prepare the dataset again"
                )
            self._frame = frame
        assert self._frame is not None
        return self._frame

    @property
    def other(self) -> int:
        """The id of rare and unseen values: the last row of the table."""
        return self.num_ids

    @property
    def num_embeddings(self) -> int:
        """Rows of the table."""
        return self.num_ids + 1

    @property
    def index(self) -> Index:
        """The index that finds values, built at the first use; any number of threads may use it."""
        return self._index.get(lambda: make_index(self.frame["value"]))

    @classmethod
    def build(
        cls, name: str, parts: pl.DataFrame, order: IdOrder = "appearance", min_count: int = 1
    ) -> "Vocabulary":
        """Give ids to the values of P rows of `value` and `count`, in which they may repeat."""
        if order not in ID_ORDERS:
            raise unknown("order of ids", order, ID_ORDERS)
        groups, _ = distinct(parts["value"], parts["count"])
        frame = groups.filter(pl.col("count") >= min_count)
        if order == "frequency":
            frame = frame.sort("count", descending=True, maintain_order=True)
        return cls(name, frame)

    def text(self, id: int) -> str | None:
        """Return a value as the raw data write it; None is missing.

        Integers of 32 bits without a sign are hexadecimal, as the criteo format writes categories.
        """
        value = self.frame["value"][id]
        if self.frame.schema["value"] == pl.UInt32 and value is not None:
            return f"{value:08x}"
        return None if value is None else str(value)

    def places(self, values: Keys) -> NDArray[np.int32]:
        """Return the place of each value (n,) among all values; their number where it is new.

        Raises:
            DatasetError: They are of a kind that cannot be in this vocabulary.

        """
        return self.index.ids(self.cast(values))  # pyright: ignore[reportArgumentType]

    def ids(self, values: Keys) -> NDArray[np.int32]:
        """Return the id of each value (n,): `other` for values that have none; see `places`."""
        places = self.places(values)
        return places if self.num_ids == self.values else np.minimum(places, np.int32(self.num_ids))

    def cast(self, values: Keys) -> Keys:
        """Return values in the type of this vocabulary; see `places`."""
        expected = self.index.dtype
        if not isinstance(values, pl.Series):
            if expected == pl.String:
                return values
            values = pl.Series(values, dtype=pl.String)
        if values.dtype == expected:
            return values
        try:
            return values.cast(expected)
        except pl.exceptions.PolarsError as error:
            problem = f"{self.name} holds {values.dtype}, but its vocabulary holds {expected}"
            raise DatasetError(f"{problem}; read the same kind of source") from error

    def known(self) -> "Vocabulary":
        """Return the values that have an id, with their counts alone."""
        if self.num_ids == self.values and self.frame.columns == ["value", "count"]:
            return self
        return Vocabulary(self.name, self.frame.head(self.num_ids).select("value", "count"))

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
        return {"name": self.name, "kept": self.num_ids, "values": self.values}

    @classmethod
    def from_dict(cls, values: dict[str, Any], file: Path) -> "Vocabulary":
        """Rebuild what `to_dict` returned; the file is read when it is needed."""
        return cls(values["name"], None, num_ids=values["kept"], values=values["values"], file=file)


def ids_of(
    vocabularies: Sequence[Vocabulary], columns: Sequence[pl.Series], moduli: Sequence[int] = ()
) -> NDArray[np.int32]:
    """Return the id of each value in the vocabulary of its column, (n, T).

    The same as `fold` and `Vocabulary.ids` for each, but integers in one call of the kernels: a row
    of 26 columns takes some tens of microseconds, and many rows are shared among threads.

    Args:
        vocabularies: T of them.
        columns: T of n rows each.
        moduli: Values of a column are taken modulo this first; 0, or none at all, leaves them.

    """
    moduli = moduli or [0] * len(columns)
    ids = np.empty((len(columns[0]) if columns else 0, len(columns)), np.int32)
    together: dict[int, tuple[IntegerIndex, Any]] = {}
    for t, (known, column, modulus) in enumerate(zip(vocabularies, columns, moduli, strict=True)):
        index = known.index
        if isinstance(index, IntegerIndex) and (not modulus or column.dtype == pl.UInt32):
            together[t] = index, column if modulus else known.cast(column)
        else:
            ids[:, t] = known.ids(fold(column, modulus or None))
    if together:
        indices, values = zip(*together.values(), strict=True)
        looked_up = look_up(indices, values, [moduli[t] for t in together])
        if len(together) == len(columns):
            return looked_up
        ids[:, list(together)] = looked_up
    return ids


def hashed(keys: Keys, rows: int) -> NDArray[np.int32]:
    """Return the row of each key: its CRC-32 modulo `rows`, the same on every machine."""
    if isinstance(keys, pl.Series):
        groups, codes = distinct(keys)
        return hashed(groups["value"].to_list(), rows)[codes]
    texts = (_MISSING if key is None else key for key in keys)
    return np.array([zlib.crc32(text.encode()) % rows for text in texts], np.int32)


def hash_vocabulary(name: str, rows: int) -> Vocabulary:
    """Return names for the rows that values are hashed to; nobody knows which values those are."""
    names = [f"hash {row}" for row in range(rows - 1)]
    return Vocabulary(name, pl.DataFrame({"value": names, "count": np.zeros(rows - 1, np.int64)}))


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
