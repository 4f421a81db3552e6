"""The values of a category and their ids.

A table has a row for each value and a last row "other", for values that are too rare and for
values that were never seen, so num_embeddings = values + 1. Missing (null) is a value like any
other.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data import kernels
from dlrm.data.index import Index, IntegerIndex, Once, look_up, make_index, small_integers
from dlrm.errors import DatasetError, unknown

IdOrder = Literal["appearance", "frequency"]
ID_ORDERS: tuple[IdOrder, ...] = ("appearance", "frequency")


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


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The values of one category; the id of a value is its row number."""

    name: str
    """Name of the feature."""
    frame: pl.DataFrame
    """`value` (null is missing) and `count`, one row an id"""
    _index: Once[Index] = field(default_factory=Once, repr=False, compare=False)

    @property
    def other(self) -> int:
        """The id of rare and unseen values: the last row of the table."""
        return self.frame.height

    @property
    def num_embeddings(self) -> int:
        """Rows of the table."""
        return self.frame.height + 1

    def text(self, id: int) -> str | None:
        """Return a value as the raw data write it; None is missing.

        Integers of 32 bits without a sign are hexadecimal, as the criteo format writes categories.
        """
        value = self.frame["value"][id]
        if self.frame.schema["value"] == pl.UInt32 and value is not None:
            return f"{value:08x}"
        return None if value is None else str(value)

    @classmethod
    def build(
        cls, name: str, parts: pl.DataFrame, order: IdOrder = "appearance", min_count: int = 1
    ) -> tuple["Vocabulary", NDArray[np.int32]]:
        """Give ids to values.

        Returns:
            The vocabulary, and the id of each of the P values.

        """
        if order not in ID_ORDERS:
            raise unknown("order of ids", order, ID_ORDERS)
        groups, codes = distinct(parts["value"], parts["count"])
        frame = groups.with_row_index("code").filter(pl.col("count") >= min_count)
        if order == "frequency":
            frame = frame.sort("count", descending=True, maintain_order=True)
        vocabulary = cls(name, frame.select("value", "count"))
        ids = np.full(len(groups), vocabulary.other, np.int32)
        ids[frame["code"].to_numpy()] = np.arange(len(frame), dtype=np.int32)
        return vocabulary, ids[codes]

    def ids(self, values: pl.Series) -> NDArray[np.int32]:
        """Return the id of each value (n,): `other` for values that have none.

        Raises:
            DatasetError: They are of a kind that cannot be in this vocabulary.

        """
        return self.index.ids(self.cast(values))

    @property
    def index(self) -> Index:
        """What finds values, made at the first call; any number of threads may use it."""
        return self._index.get(lambda: make_index(self.frame["value"]))

    def cast(self, values: pl.Series) -> pl.Series:
        """Return values in the type of this vocabulary.

        Raises:
            DatasetError: They are of a kind that cannot be in this vocabulary.

        """
        expected = self.index.dtype
        if values.dtype == expected:
            return values
        try:
            return values.cast(expected)
        except pl.exceptions.PolarsError as error:
            problem = f"{self.name} holds {values.dtype}, but its vocabulary holds {expected}"
            raise DatasetError(f"{problem}; read the same kind of source") from error


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
    together: dict[int, tuple[IntegerIndex, pl.Series]] = {}
    alone: dict[int, NDArray[np.int32]] = {}
    for t, (vocabulary, column, modulus) in enumerate(
        zip(vocabularies, columns, moduli, strict=True)
    ):
        index = vocabulary.index
        if isinstance(index, IntegerIndex) and (not modulus or column.dtype == pl.UInt32):
            together[t] = index, column if modulus else vocabulary.cast(column)
        else:
            alone[t] = vocabulary.ids(fold(column, modulus or None))
    if not together:
        return np.stack([*alone.values()], axis=1) if alone else np.empty((0, 0), np.int32)
    indices, values = zip(*together.values(), strict=True)
    ids = look_up(indices, values, [moduli[t] for t in together])
    if not alone:
        return ids
    every = np.empty((len(ids), len(columns)), np.int32)
    every[:, list(together)] = ids
    for t, column in alone.items():
        every[:, t] = column
    return every
