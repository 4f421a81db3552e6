"""Raw rows to score, with or without labels: from files, or frames in memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
from numpy.typing import NDArray

from dlrm.data.coverage import Coverage
from dlrm.data.encoded import Encoded
from dlrm.data.features.features import Features
from dlrm.data.features.list import List
from dlrm.data.features.rows import FEW_ROWS, PLAIN, TEXTS, Rows, hexadecimals
from dlrm.data.sources.criteo import CATEGORIES, CriteoSource, as_hexadecimal
from dlrm.data.sources.frame import NAME, to_polars
from dlrm.data.sources.raw_table import RawTable, check_types
from dlrm.data.sources.reading import Reading
from dlrm.data.sources.source import BadRows, OnBadRow
from dlrm.data.sources.table_files import TableFiles
from dlrm.data.threads import check_pool, pool_lost
from dlrm.errors import ConfigError, InputError, unknown
from dlrm.terminal import err

TABLES = ("table", "libsvm")
"""Sources whose columns are whatever the files have."""
_CRITEO = ("criteo", "clicks")
"""Sources whose rows are raw Criteo text, or can be written as that."""
_SHOWN = 5
MOST_EXAMPLES = 1000
"""Bad rows whose reasons are kept."""
MOST_ACCEPTED = 16
"""Shapes of frames that are remembered."""
PIECE_ROWS = 1 << 17
"""Rows of a frame in memory that are encoded together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBlock:
    """Some n rows of a file in their order, of which those that are good are encoded."""

    encoded: Encoded | None
    """The good rows; None where there are none."""
    good: NDArray[np.bool_]
    """(n,) which those are"""
    columns: pl.DataFrame
    """(n rows) the columns that are kept beside the scores, as they are in the file"""


class FileRows:
    """The rows of raw files, as arrays.

    Of tables, columns that the model does not know are ignored, and said once. Texts are read as
    the user says, as in training, or as they look. Columns to `keep` may be lists with commas.

    Raises:
        InputError: A file is missing or damaged.
        ConfigError: Nobody knows how files of that source are read.

    """

    def __init__(
        self,
        features: Features,
        files: Sequence[Path],
        bad_rows: OnBadRow = "error",
        *,
        keep: Sequence[str] = (),
        reading: Reading | None = None,
    ):
        check_pool()
        self._features, self._bad_rows, self._keep = features, bad_rows, keep
        if features.source in TABLES:
            self._source = table_files(features, files, bad_rows, reading or Reading())
        elif features.source in _CRITEO:
            if reading not in (None, Reading()):
                raise ConfigError("how texts are read is known: the run is of Criteo's format")
            self._source = CriteoSource(files, bad_rows=bad_rows, labelled=None)
        else:
            raise ConfigError(
                f"the run was trained on rows of {features.source}, whose files only that source "
                "reads; score frames in memory: dlrm.Predictor.open(RUN).scores(frame)"
            )
        self.bad = BadRows(examples=MOST_EXAMPLES)
        """Rows that were left out so far."""
        self.coverage: Coverage | None = None
        """Counts what the rows hold, where it is set."""

    def rows(self) -> int:
        """Return about how many rows there are."""
        return self._source.rows()

    def blocks(self) -> Iterator[FileBlock]:
        """Yield all rows, in order.

        Raises:
            InputError: A column is missing, or a number is none; names the column and the row.
            ConfigError: There is no column of a name that is to be kept.

        """
        place = 0
        with TemporaryDirectory(prefix="dlrm-") as folder:
            for table in self._tables(Path(folder)):
                if place == 0:
                    check_columns(self._features, table.types, table.parts[0].origin)
                    self._say_ignored(table)
                yield from self._blocks_of(table, place)
                place += sum(part.all_rows for part in table.parts)

    def _tables(self, folder: Path) -> Iterator[RawTable]:
        """Yield the rows as tables: those of a log some at a time, and in memory."""
        if isinstance(self._source, TableFiles):
            yield self._source.table(folder, lambda _: None)
        else:
            for part in self._source.parts():
                rows = part.read(part.scan)
                rows = rows if self._source.labelled else rows.drop(self._source.label)
                yield RawTable((replace(part, data=rows),))

    def _blocks_of(self, table: RawTable, place: int) -> Iterator[FileBlock]:
        """Yield the rows of a table, the first of which has a place among all."""
        keep, log = _named(self._keep, list(table.types)), isinstance(self._source, CriteoSource)
        for fault in table.faults:
            self.bad.add(fault.reason, fault.error, place + fault.place)
        start = 0
        for frame, numbers in table.placed_blocks(
            list(dict.fromkeys((*self._features.needed, *keep)))
        ):
            rows = self._features.rows(frame)
            bad = self._bad_numbers(table, rows, start, place, numbers)
            good = numbers.is_not_null().to_numpy().copy()
            good[good] = ~bad
            if bad.any():
                rows = self._features.rows(frame.filter(~bad))
            columns = frame.select(
                as_hexadecimal(name) if log and name in CATEGORIES else cs.by_name(name)
                for name in keep
            )
            yield FileBlock(
                encoded=self._encoded(rows) if rows.height else None,
                good=good,
                columns=_gathered(columns, numbers),
            )
            start, place = start + frame.height, place + len(numbers)

    def _encoded(self, rows: Rows) -> Encoded:
        encoded = self._features.encode(rows)
        if self.coverage is not None:
            self.coverage.add(encoded, rows)
        return encoded

    def _say_ignored(self, table: RawTable) -> None:
        columns, keep = self._features.columns, _named(self._keep, list(table.types))
        known = {*(column.name for column in columns.columns), *columns.labels, columns.weight}
        if extra := [name for name in table.types if name not in {*known, *keep}]:
            names = ", ".join(extra[:_SHOWN]) + (", ..." if len(extra) > _SHOWN else "")
            err.print(f"Ignored, because the model does not know them: {names}", highlight=False)

    def _bad_numbers(
        self, table: RawTable, rows: Rows, start: int, place: int, numbers: pl.Series
    ) -> NDArray[np.bool_]:
        """Return which rows have a number that is none; raise at one, or count it."""
        bad = np.zeros(rows.height, np.bool_)
        places = numbers.is_not_null().arg_true()
        for name, wrong, expected in self._features.wrong(rows):
            for row in wrong.arg_true().to_list():
                problem = f'is "{rows.columns[name][row]}", expected {expected}'
                error = table.error(start + row, name, problem)
                if self._bad_rows == "error":
                    raise error
                if not bad[row]:
                    self.bad.add(name, error, place + places[row])
                bad[row] = True
        return bad


def table_files(
    features: Features, files: Sequence[Path], bad_rows: OnBadRow, asked: Reading
) -> TableFiles:
    """Return the files as they are read in training, or as they look where that does not fit."""

    def opened(reading: Reading) -> TableFiles:
        return TableFiles(
            files,
            known=features.layout,
            reading=reading,
            columns=features.needed,
            bad_rows=bad_rows,
        )

    trained = asked.over(features.reading)
    if trained == asked:
        return opened(asked)
    try:
        table = opened(trained)
    except InputError:
        return opened(asked)
    fits = not table.names or set(features.needed) <= set(table.names)
    return table if fits else opened(asked)


def _named(keep: Sequence[str], names: Sequence[str]) -> list[str]:
    columns = [name for word in keep for name in ([word] if word in names else word.split(","))]
    for name in columns:
        if name not in names:
            raise unknown("column to keep", name, names)
    return list(dict.fromkeys(columns))


def _gathered(frame: pl.DataFrame, numbers: pl.Series) -> pl.DataFrame:
    """Return the rows of some numbers, with nothing in those whose number is missing."""
    return frame.select(pl.all().gather(numbers)) if frame.width else frame


def encode_frame(features: Features, frame: Any) -> Encoded:
    """Return the rows of a frame in memory as arrays, without labels.

    Args:
        features: Features of the run.
        frame: n rows, of Polars, of pandas, or anything Polars makes a frame of; columns that the
            model does not know are not looked at.

    Raises:
        InputError: A column is missing, or a number is none; names the column and the row.
        DatasetError: The values of a column are of another type than those trained on.

    """
    return features.encode(_checked(features, to_polars(frame)))


def encode_pieces(features: Features, frame: Any) -> Iterator[Encoded]:
    """Yield the rows of a frame in order, some at a time, so that memory holds few as arrays.

    Args and errors are those of `encode_frame`. There is one piece at least.
    """
    rows = to_polars(frame)
    most = FEW_ROWS if pool_lost() else PIECE_ROWS
    if rows.height > PIECE_ROWS and not pool_lost():
        # All of it, so that errors count its rows.
        _checked(features, rows)
    pieces = rows.iter_slices(most) if rows.height else [rows]
    yield from (encode_frame(features, piece) for piece in pieces)


def _checked(features: Features, frame: pl.DataFrame) -> Rows:
    """Return the rows of a frame, which can be encoded, or raise an InputError."""
    rows = features.rows(frame)
    # Types without parameters, which say all: to look at each takes longer than to score a row.
    shape = *rows.types, *map(type, rows.types.values())
    if shape not in features.accepted:
        check_columns(features, rows.types, NAME)
        if len(features.accepted) < MOST_ACCEPTED and PLAIN.issuperset(shape[len(rows.types) :]):
            features.accepted.add(shape)
    # The frames of a log hold integers; whoever takes rows from its text need not convert them.
    if features.source in _CRITEO and not TEXTS.isdisjoint(shape[len(rows.types) :]):
        for name in features.numbered_columns:
            if type(rows.types[name]) in TEXTS:
                texts = rows.columns[name]
                rows.columns[name], bad = hexadecimals(texts)
                if bad is not None:
                    problem = f'is "{texts[bad]}", expected up to 8 hexadecimal digits'
                    raise InputError(problem, file=NAME, row=bad + 1, column=name)
    for name, wrong, expected in features.wrong(rows):
        row = int(wrong.arg_true()[0])
        problem = f'is "{rows.columns[name][row]}", expected {expected}'
        raise InputError(problem, file=NAME, row=row + 1, column=name)
    return rows


def check_columns(features: Features, types: Mapping[str, pl.DataType], origin: Path | str) -> None:
    """Raise an InputError unless rows have the columns that a model needs."""
    for name in features.needed:
        if name not in types:
            problem = f"has no such column, which the model needs; it has {', '.join(types)}"
            raise InputError(problem, file=origin, column=name)
    check_types({name: types[name] for name in features.needed}, origin)
    for feature in features.features:
        if isinstance(feature, List):
            continue
        for name in feature.columns:
            if types[name].is_nested():
                problem = f"holds {types[name]}, but single values when the model trained"
                raise InputError(problem, file=origin, column=name)
