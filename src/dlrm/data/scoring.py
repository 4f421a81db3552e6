"""Raw rows to score: files of the kind that a model was trained on, with or without labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import numpy as np
import polars as pl

from dlrm.data.bad_rows import BadRows, OnBadRow
from dlrm.data.criteo import CriteoSource
from dlrm.data.encoder import Encoded, Encoder
from dlrm.data.tabular.encoder import TableEncoder
from dlrm.data.tabular.raw import RawTable
from dlrm.data.tabular.source import FileTable, FrameTable, Table
from dlrm.data.tabular.tokens import Tokens
from dlrm.errors import InputError
from dlrm.terminal import err

TABLES = ("table", "libsvm")
"""Kinds of source whose columns are whatever the table has."""
_SHOWN = 5


class Rows(Protocol):
    """Rows to score."""

    @property
    def bad(self) -> BadRows:
        """Those left out so far."""
        ...

    def rows(self) -> int:
        """Return about how many there are."""
        ...

    def read(self) -> Iterator[Encoded]:
        """Yield them as arrays, in order."""
        ...


def rows_of(
    encoder: Encoder | TableEncoder, files: Sequence[Path], bad_rows: OnBadRow = "error"
) -> Rows:
    """Return the rows of raw files, as a model's encoder takes them.

    Args:
        encoder: Of the run.
        files: Of the kind that it was trained on.
        bad_rows: Stop at a row that is not what it should be, or leave it out.

    Raises:
        InputError: A file is missing or damaged, or lacks a column.

    """
    if isinstance(encoder, TableEncoder) and encoder.source in TABLES:
        return TableRows(encoder, FileTable(list(files), known=encoder.layout), bad_rows)
    return LogRows(encoder, CriteoSource(list(files), bad_rows=bad_rows, labelled=None))


class LogRows:
    """Rows of raw Criteo text."""

    def __init__(self, encoder: Encoder | TableEncoder, source: CriteoSource):
        self._encoder, self._source = encoder, source

    @property
    def bad(self) -> BadRows:
        """See `Rows`."""
        return self._source.bad

    def rows(self) -> int:
        """See `Rows`."""
        return self._source.rows()

    def read(self) -> Iterator[Encoded]:
        """See `Rows`."""
        for frame in self._source.read():
            yield self._encoder.encode(frame)


class TableRows:
    """Rows of a table; columns that the model does not know are ignored, and said once."""

    def __init__(self, encoder: TableEncoder, table: Table, bad_rows: OnBadRow = "error"):
        self._encoder, self._table, self._bad_rows = encoder, table, bad_rows
        self.bad = BadRows()

    def rows(self) -> int:
        """See `Rows`."""
        return self._table.rows()

    def read(self) -> Iterator[Encoded]:
        """See `Rows`.

        Raises:
            InputError: A column is missing, or a number is none; names the column and the row.

        """
        with TemporaryDirectory(prefix="dlrm-") as folder:
            raw = self._table.write(Path(folder), lambda _: None)
            self._check_columns(raw)
            labelled = self._encoder.label in raw.types
            names = [*self._encoder.needed, *([self._encoder.label] if labelled else [])]
            start = 0
            for block in raw.blocks(names):
                yield self._encoder.encode(self._good(raw, block, start))
                start += block.height

    def _check_columns(self, raw: RawTable) -> None:
        origin = raw.parts[0].origin
        for name in self._encoder.needed:
            if name not in raw.types:
                problem = (
                    f"has no such column, which the model needs; it has {', '.join(raw.types)}"
                )
                raise InputError(problem, file=origin, column=name)
        for feature in self._encoder.features:
            lists = isinstance(feature, Tokens)
            for name in feature.columns:
                if raw.types[name].is_nested() and not lists:
                    problem = f"holds {raw.types[name]}, but single values when the model trained"
                    raise InputError(problem, file=origin, column=name)
        known = {column.name for column in self._encoder.columns.columns} | {self._encoder.label}
        if extra := [name for name in raw.types if name not in known]:
            said = ", ".join(extra[:_SHOWN]) + (", ..." if len(extra) > _SHOWN else "")
            err.print(
                f"Ignored, because the model does not know them: {said}",
                highlight=False,
                markup=False,
            )

    def _good(self, raw: RawTable, block: pl.DataFrame, start: int) -> pl.DataFrame:
        """Return the rows whose numbers are numbers; raise at another one, or count it."""
        bad = np.zeros(block.height, np.bool_)
        for name, wrong, expected in self._encoder.wrong(block):
            for row in wrong.arg_true().to_list():
                problem = f'is "{block[name][row]}", expected {expected}'
                error = raw.error(start + row, name, problem)
                if self._bad_rows == "error":
                    raise error
                if not bad[row]:
                    self.bad.add(name, error)
                bad[row] = True
        return block.filter(~bad) if bad.any() else block


def frame_rows(encoder: TableEncoder, frame: object) -> TableRows:
    """Return the rows of a frame in memory."""
    return TableRows(encoder, FrameTable(frame))
