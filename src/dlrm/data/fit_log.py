"""The log of a known format, fitted out of core.

The log becomes blocks of codes on disk, the distinct values of all blocks become vocabularies,
feature by feature, and the blocks become arrays. Each stage reads and writes in order; memory holds
a few blocks and two features' distinct values. A code is the place of a value among the distinct
values of its block, so that ids are later one gather per block: what costs a hash table is done per
distinct value, not per row.

    <block>.rows.arrow     n rows: label, dense (Float32), codes (Int32), and truth where known
    <block>.values.arrow   1 row: for each category the list of its distinct values and counts
    <feature>.ids          ids of these distinct values, block after block (int32)
"""

from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray
from rich.progress import Progress

from dlrm.data import kernels
from dlrm.data.encoded import Encoded
from dlrm.data.features.category import Category
from dlrm.data.features.columns import Columns
from dlrm.data.features.features import Feature, Features, vocabulary_file
from dlrm.data.features.labels import Label
from dlrm.data.features.number import Number, dense_array, dense_columns
from dlrm.data.features.value_table import ValueTable
from dlrm.data.fitted import Block, Fitted, described_input
from dlrm.data.options import PrepareConfig
from dlrm.data.sources.source import BadRows, CountsBadRows, Source
from dlrm.data.split import HasDays, Plan, plan
from dlrm.data.store import VOCABULARY_FOLDER
from dlrm.data.threads import ahead, in_order
from dlrm.data.vocabulary import Vocabulary, distinct, fold
from dlrm.errors import DatasetError

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
    """Blocks of rows on disk."""

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


def is_log(schema: Columns) -> bool:
    """Whether a schema has nothing but what is known before any row is read, and ids in a log."""
    return (
        schema.whole_log
        and schema.task == "classification"
        and len(schema.labels) == 1
        and schema.weight is None
        and not schema.crosses
        and all(
            column.values.whole_log
            if column.kind == "category"
            else column.kind == "number"
            and column.scale == "log1p"
            and column.dense
            and not (column.buckets or column.missing_flag or column.time or column.format)
            for column in schema.used()
        )
    )


def fit_log(
    source: Source, schema: Columns, config: PrepareConfig, folder: Path, bar: Progress
) -> Fitted:
    """Fit a log."""
    spill = Spill(folder / "spill", schema)
    _read(source, spill, bar)
    tables = _build(schema, spill, folder, bar)
    features: list[Feature] = [
        Category(columns=(column.name,), values=column.values, table=tables[column.name])
        if column.kind == "category"
        else Number(name=column.name, scale=column.scale, dense=True, flag=False)
        for column in schema.used()
    ]
    fitted = Features(
        source=source.name,
        columns=schema,
        targets=(Label(name=schema.labels[0]),),
        features=tuple(features),
    )
    where = plan(
        config.protocol("kaggle"),
        spill.rows,
        fractions=config.fractions,
        seed=config.seed,
        days=source.day_rows if isinstance(source, HasDays) else (),
    )
    return Fitted(
        features=fitted,
        rows=spill.rows,
        counted_rows=spill.rows,
        bad_rows=_bad_rows(source),
        blocks=_blocks(spill, where),
        inputs=partial(_inputs, fitted, spill),
        truth=spill.truth,
    )


def _inputs(features: Features, spill: Spill) -> list[dict[str, Any]]:
    described = []
    for feature, model_input in features.inputs:
        name = model_input.name
        rare = spill.rows - spill.counted[name] if isinstance(feature, Category) else None
        missing = spill.missing[name]
        described.append(described_input(model_input, missing=missing, rows=spill.rows, rare=rare))
    return described


def _blocks(spill: Spill, where: Plan) -> Generator[Block, None, None]:
    """Yield all rows, and delete them from the spill."""
    start = 0
    numbers = (number for number in range(len(spill.block_rows)))
    with closing(in_order(spill.read, numbers)) as encoded:
        for number, block in enumerate(encoded):
            stop = start + spill.block_rows[number]
            yield Block(block, where.pieces(start, stop))
            spill.drop(number)
            start = stop


def _read(source: Source, spill: Spill, bar: Progress) -> None:
    """First stage: the log becomes blocks of codes."""
    task = bar.add_task("Reading rows", total=source.rows())
    with closing(spill.fill(blocks(source.read()))) as written:
        for rows in written:
            bar.advance(task, rows)
    bar.update(task, total=spill.rows, completed=spill.rows)
    if not spill.rows:
        bad = _bad_rows(source)
        why = f": all {bad.total} were bad, the first is {bad.first[0]}" if bad.total else ""
        raise DatasetError(f"the log has no good row{why}")


def _build(schema: Columns, spill: Spill, folder: Path, bar: Progress) -> dict[str, ValueTable]:
    """Second stage: vocabularies, which go to their files at once."""
    (folder / VOCABULARY_FOLDER).mkdir()
    categories = [column.name for column in schema.used() if column.kind == "category"]

    def one(name: str) -> ValueTable:
        frame = spill.build(name).frame
        file = folder / vocabulary_file(categories.index(name))
        ValueTable(name, frame, kept=frame.height).save(file)
        return ValueTable(name, None, kept=frame.height, values=frame.height, file=file)

    names = (name for name in bar.track(categories, description="Building vocabularies"))
    # Polars alone uses all cores for one feature, and more memory than the kernels do for two.
    built = in_order(one, names, 2 if kernels.available() else 1)
    tables = dict(zip(categories, built, strict=True))
    spill.drop_values()
    return tables


def _bad_rows(source: Source) -> BadRows:
    return source.bad if isinstance(source, CountsBadRows) else BadRows()
