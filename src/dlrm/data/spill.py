"""The log between its two passes: blocks of rows on disk, in which categories are codes.

A code is the place of a value among the distinct values of its block, so that a block can be
written before the vocabularies are known, and ids are later one gather per block: what costs a
hash table is done per distinct value, not per row.

    <block>.rows.arrow     n rows: label, dense (Float32), codes (Int32), and truth where known
    <block>.values.arrow   1 row: for each category the list of its distinct values and counts
    <feature>.ids          ids of these distinct values, block after block (int32)
"""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from dlrm.data.dense import dense_array, dense_columns
from dlrm.data.encoded import Encoded
from dlrm.data.features.columns import Columns
from dlrm.data.threads import ahead, in_order
from dlrm.data.vocabulary import Vocabulary, distinct, fold

BLOCK_ROWS = 1 << 17
TRUTH = "truth"


def blocks(
    frames: Iterator[pl.DataFrame], rows: int = BLOCK_ROWS
) -> Generator[pl.DataFrame, None, None]:
    """Yield the same rows in frames of at least `rows`, the last one excepted."""
    held: list[pl.DataFrame] = []
    for frame in frames:
        held.append(frame)
        if sum(part.height for part in held) >= rows:
            yield pl.concat(held)
            held = []
    if held:
        yield pl.concat(held)


class _Block(NamedTuple):
    """What is known of a block that was written."""

    rows: int
    truth: bool
    missing: dict[str, int]
    """Column -> rows in which it is missing."""
    values: dict[str, int]
    """Category -> distinct values."""


class Spill:
    """Blocks of rows on disk.

    Args:
        folder: Is made here; the caller removes it.
        schema: What the columns are: one label, numbers of scale log1p, and categories that are
            numbered over the whole log.

    """

    def __init__(self, folder: Path, schema: Columns):
        self._folder, (self._label,) = folder, schema.labels
        self._dense = tuple(column.name for column in schema.used() if column.kind == "number")
        self._categories = {
            column.name: column.values for column in schema.used() if column.kind == "category"
        }
        folder.mkdir()
        self.block_rows: list[int] = []
        """Rows of each block."""
        self.missing = dict.fromkeys((*self._dense, *self._categories), 0)
        """Rows in which a column is missing."""
        self.counted: dict[str, int] = {}
        """Rows of each category whose value has an id of its own, once it is built."""
        self.truth = False
        """Whether the source knows the truth."""
        self._offsets = {name: [0] for name in self._categories}
        self._ids: dict[str, NDArray[np.int32]] = {}

    @property
    def rows(self) -> int:
        """Rows of all blocks."""
        return sum(self.block_rows)

    def fill(self, frames: Generator[pl.DataFrame, None, None]) -> Generator[int, None, None]:
        """Write frames as blocks, several at a time; yield the rows of each."""
        numbered = (numbered for numbered in enumerate(ahead(frames)))
        for block in in_order(self._code, numbered):
            self.block_rows.append(block.rows)
            self.truth = block.truth
            for name, missing in block.missing.items():
                self.missing[name] += missing
            for name, values in block.values.items():
                self._offsets[name].append(self._offsets[name][-1] + values)
            yield block.rows

    def _code(self, numbered: tuple[int, pl.DataFrame]) -> _Block:
        """Write a block of rows."""
        block, frame = numbered
        columns, values, distinct_values = [], [], {}
        for number, (name, settings) in enumerate(self._categories.items()):
            groups, codes = distinct(fold(frame[name], settings.modulo or None))
            distinct_values[name] = groups.height
            columns.append(pl.Series(f"code{number}", codes))
            counted = pl.struct("value", pl.col("count").cast(pl.UInt32))
            values.append(groups.select(counted.implode().alias(name)))
        kept = [frame[self._label].alias("label")]
        if TRUTH in frame.columns:
            kept.append(frame[TRUTH].cast(pl.Float32).alias(TRUTH))
        dense = dense_columns(frame, self._dense)
        dense.columns = [f"dense{number}" for number in range(dense.width)]
        self._write(block, "rows", pl.DataFrame([*kept, *dense.get_columns(), *columns]))
        self._write(block, "values", pl.concat(values, how="horizontal"))
        missing = {name: frame[name].null_count() for name in self.missing}
        return _Block(frame.height, TRUTH in frame.columns, missing, distinct_values)

    def build(self, name: str) -> Vocabulary:
        """Build the vocabulary of a feature from all blocks, and keep the ids of its values."""
        parts = [
            pl.scan_ipc(self._path(block, "values"), glob=False)
            .select(cs.by_name(name))
            .collect()
            .to_series()
            .explode()
            .struct.unnest()
            for block in range(len(self.block_rows))
        ]
        values = pl.concat(parts, rechunk=False)
        del parts
        settings = self._categories[name]
        vocabulary, ids = Vocabulary.build(name, values, settings.ids, settings.min_count)
        file = self._folder / f"{list(self._categories).index(name)}.ids"
        ids.tofile(file)
        self.counted[name] = int(vocabulary.frame["count"].sum())
        self._ids[name] = np.memmap(file, np.int32, "r")
        return vocabulary

    def read(self, block: int) -> Encoded:
        """Return the rows of a block as arrays.

        Every vocabulary must have been built before.
        """
        frame = pl.scan_ipc(self._path(block, "rows"), glob=False).collect()
        ids = np.empty((frame.height, len(self._categories)), np.int32)
        for number, name in enumerate(self._categories):
            table = self._ids[name][self._offsets[name][block] : self._offsets[name][block + 1]]
            ids[:, number] = table[frame[f"code{number}"].to_numpy()]
        dense = frame.select(f"dense{number}" for number in range(len(self._dense)))
        return Encoded(
            dense_array(dense),
            ids,
            frame["label"].to_numpy()[:, None],
            truth=frame[TRUTH].to_numpy() if self.truth else None,
        )

    def drop_values(self) -> None:
        """Delete the distinct values: all vocabularies have been built."""
        for block in range(len(self.block_rows)):
            self._path(block, "values").unlink()

    def drop(self, block: int) -> None:
        """Delete the rows of a block that is no longer needed."""
        self._path(block, "rows").unlink()

    def _path(self, block: int, kind: str) -> Path:
        return self._folder / f"{block:06}.{kind}.arrow"

    def _write(self, block: int, kind: str, frame: pl.DataFrame) -> None:
        # Through a Python file, so that a full disk is the OSError that it is.
        with self._path(block, kind).open("wb") as stream:
            frame.write_ipc(stream, compression="uncompressed")
