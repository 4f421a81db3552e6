"""The log of a known format, fitted out of core.

The log becomes blocks of codes (spill), the distinct values of all blocks become vocabularies,
feature by feature, and the blocks become arrays. Each stage reads and writes in order; memory holds
a few blocks and two features' distinct values.
"""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.progress import Progress

from dlrm.data import kernels
from dlrm.data.bad_rows import BadRows, CountsBadRows
from dlrm.data.features.category import Category
from dlrm.data.features.columns import Columns
from dlrm.data.features.features import Feature, Features, vocabulary_file
from dlrm.data.features.labels import Label
from dlrm.data.features.number import Number
from dlrm.data.features.value_table import ValueTable
from dlrm.data.fitted import Block, described_input
from dlrm.data.options import PrepareConfig
from dlrm.data.sources.source import Source
from dlrm.data.spill import Spill, blocks
from dlrm.data.split import HasDays, Plan, plan
from dlrm.data.store import VOCABULARY_FOLDER
from dlrm.data.threads import in_order
from dlrm.errors import DatasetError


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


class FittedLog:
    """A log, fitted."""

    def __init__(self, source: Source, features: Features, spill: Spill, where: Plan):
        self.features, self._spill, self._where = features, spill, where
        self.bad_rows = _bad_rows(source)
        self.rows = self.counted_rows = spill.rows
        self.truth = spill.truth
        self.notes: tuple[str, ...] = ()

    def inputs(self) -> list[dict[str, Any]]:
        """Return what is known of each input."""
        described = []
        for feature, model_input in self.features.inputs:
            missing, rare = self._spill.missing[model_input.name], None
            if isinstance(feature, Category):
                rare = self._spill.rows - self._spill.counted[model_input.name]
            described.append(
                described_input(model_input, missing=missing, rows=self._spill.rows, rare=rare)
            )
        return described

    def blocks(self) -> Generator[Block, None, None]:
        """Yield all rows, and delete them from the spill."""
        start = 0
        numbers = (number for number in range(len(self._spill.block_rows)))
        with closing(in_order(self._spill.read, numbers)) as encoded:
            for number, block in enumerate(encoded):
                stop = start + self._spill.block_rows[number]
                yield Block(block, self._where.pieces(start, stop))
                self._spill.drop(number)
                start = stop


def fit_log(
    source: Source, schema: Columns, config: PrepareConfig, folder: Path, bar: Progress
) -> FittedLog:
    """Fit a log.

    Args:
        source: The log.
        schema: What its columns are, see `is_log`.
        config: How it is prepared.
        folder: The dataset's: the vocabularies stay there, `spill` may go.
        bar: Shows how far it is.

    Raises:
        InputError: A row is not what it should be; names file, line and column.
        DatasetError: The log has no good row.

    """
    spill = Spill(folder / "spill", schema)
    _read(source, spill, bar)
    tables = _build(schema, spill, folder, bar)
    features: list[Feature] = [
        Category(columns=(column.name,), values=column.values, table=tables[column.name])
        if column.kind == "category"
        else Number.unfitted(column)
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
    return FittedLog(source, fitted, spill, where)


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
    """Return the rows that the source left out."""
    return source.bad if isinstance(source, CountsBadRows) else BadRows()
