"""Raw rows to score, with or without labels: from files, or frames in memory."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

from dlrm.data.bad_rows import BadRows, OnBadRow
from dlrm.data.encoded import Encoded
from dlrm.data.features.features import Features
from dlrm.data.features.few_rows import FEW_ROWS
from dlrm.data.features.list import List
from dlrm.data.features.texts import is_text
from dlrm.data.forked import check_pool, pool_lost
from dlrm.data.sources.criteo import CriteoSource
from dlrm.data.sources.frame import NAME, to_polars
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.sources.table_files import TableFiles
from dlrm.errors import ConfigError, InputError
from dlrm.terminal import err

_TABLES = ("table", "libsvm")
"""Sources whose columns are whatever the files have."""
_CRITEO = ("criteo", "clicks")
"""Sources whose rows are raw Criteo text, or can be written as that."""
_SHOWN = 5
PIECE_ROWS = 1 << 17
"""Rows of a frame in memory that are encoded together."""


class FileRows:
    """The rows of raw files, as arrays.

    Args:
        features: Of the run.
        files: Of the kind that it was trained on. Of tables, columns that the model does not know
            are ignored, and said once.
        bad_rows: Stop at a row that is not what it should be, or leave it out.

    Raises:
        InputError: A file is missing or damaged.
        ConfigError: Nobody knows how files of that source are read.

    """

    def __init__(self, features: Features, files: Sequence[Path], bad_rows: OnBadRow = "error"):
        check_pool()
        self._features, self._bad_rows = features, bad_rows
        if features.source in _TABLES:
            self._source = TableFiles(files, known=features.layout)
        elif features.source in _CRITEO:
            self._source = CriteoSource(files, bad_rows=bad_rows, labelled=None)
        else:
            raise ConfigError(
                f"the run was trained on rows of {features.source}, whose files only that source "
                "reads; score frames in memory: dlrm.Predictor.open(RUN).scores(frame)"
            )
        self._bad = BadRows()

    @property
    def bad(self) -> BadRows:
        """Rows that were left out so far."""
        return self._bad if isinstance(self._source, TableFiles) else self._source.bad

    def rows(self) -> int:
        """Return about how many rows there are."""
        return self._source.rows()

    def read(self) -> Iterator[Encoded]:
        """Yield the rows as arrays, in order.

        Raises:
            InputError: A column is missing, or a number is none; names the column and the row.

        """
        if not isinstance(self._source, TableFiles):
            for frame in self._source.read():
                yield self._features.encode(frame)
            return
        with TemporaryDirectory(prefix="dlrm-") as folder:
            table, start = self._source.table(Path(folder), lambda _: None), 0
            check_columns(self._features, table.types, table.parts[0].origin)
            self._say_ignored(table)
            for block in table.blocks(self._features.needed):
                yield self._features.encode(self._good_rows(table, block, start))
                start += block.height

    def _say_ignored(self, table: RawTable) -> None:
        columns = self._features.columns
        known = {*(column.name for column in columns.columns), *columns.labels, columns.weight}
        if extra := [name for name in table.types if name not in known]:
            names = ", ".join(extra[:_SHOWN]) + (", ..." if len(extra) > _SHOWN else "")
            err.print(
                f"Ignored, because the model does not know them: {names}",
                highlight=False,
                markup=False,
            )

    def _good_rows(self, table: RawTable, block: pl.DataFrame, start: int) -> pl.DataFrame:
        """Return the rows whose numbers are numbers; raise at another one, or count it."""
        bad = np.zeros(block.height, np.bool_)
        for name, wrong, expected in self._features.wrong(block):
            for row in wrong.arg_true().to_list():
                problem = f'is "{block[name][row]}", expected {expected}'
                error = table.error(start + row, name, problem)
                if self._bad_rows == "error":
                    raise error
                if not bad[row]:
                    self._bad.add(name, error)
                bad[row] = True
        return block.filter(~bad) if bad.any() else block


def encode_frame(features: Features, frame: Any) -> Encoded:
    """Return the rows of a frame in memory as arrays, without labels.

    Args:
        features: Of the run.
        frame: n rows, of Polars, of pandas, or anything Polars makes a frame of; columns that the
            model does not know are not looked at.

    Raises:
        InputError: A column is missing, or a number is none; names the column and the row.
        DatasetError: The values of a column are of another type than those trained on.

    """
    rows = to_polars(frame)
    encoded = features.few_rows.encode(rows)
    if encoded is not None:
        return encoded
    check_pool()
    return features.encode(_checked(features, rows))


def encode_pieces(features: Features, frame: Any) -> Iterator[Encoded]:
    """Yield the rows of a frame in order, some at a time, so that memory holds few as arrays.

    Args and errors are those of `encode_frame`. There is one piece at least.
    """
    rows = to_polars(frame)
    if rows.height <= PIECE_ROWS and not pool_lost():
        yield encode_frame(features, rows)
        return
    if pool_lost():
        yield from (encode_frame(features, piece) for piece in rows.iter_slices(FEW_ROWS))
        return
    # All of it, so that errors count its rows.
    rows = _checked(features, rows)
    for piece in rows.iter_slices(PIECE_ROWS):
        yield features.encode(piece)


def _checked(features: Features, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of a frame that can be encoded, or raise an InputError."""
    check_columns(features, rows.schema, NAME)
    rows = _integers(features, rows)
    for name, wrong, expected in features.wrong(rows):
        row = int(wrong.arg_true()[0])
        problem = f'is "{rows[name][row]}", expected {expected}'
        raise InputError(problem, file=NAME, row=row + 1, column=name)
    return rows


def _integers(features: Features, rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows whose hexadecimal texts are integers, where the model's log writes them so."""
    numbered = [name for name in features.numbered_columns if is_text(rows[name])]
    if not (features.hexadecimal and numbered):
        return rows
    columns = []
    for name in numbered:
        texts = rows[name].cast(pl.String)
        good = texts.str.contains("^[0-9a-fA-F]{0,8}$")
        if not good.all():
            row = int((~good).arg_true()[0])
            problem = f'is "{texts[row]}", expected up to 8 hexadecimal digits'
            raise InputError(problem, file=NAME, row=row + 1, column=name)
        columns.append(texts.set(texts == "", None).str.to_integer(base=16, dtype=pl.UInt32))
    return rows.with_columns(columns)


def check_columns(features: Features, types: Mapping[str, pl.DataType], origin: Path | str) -> None:
    """Raise an InputError unless rows have the columns that a model needs.

    Args:
        features: Of the run.
        types: Name of a column of the rows -> its type.
        origin: Where the rows come from, for errors.

    """
    for name in features.needed:
        if name not in types:
            problem = f"has no such column, which the model needs; it has {', '.join(types)}"
            raise InputError(problem, file=origin, column=name)
    for feature in features.features:
        if isinstance(feature, List):
            continue
        for name in feature.columns:
            if types[name].is_nested():
                problem = f"holds {types[name]}, but single values when the model trained"
                raise InputError(problem, file=origin, column=name)
