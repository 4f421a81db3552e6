"""Source `table`: files with named columns, CSV and its kin, JSON lines, Parquet, or libsvm."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from dlrm.data.features.columns import Columns
from dlrm.data.sources import json_lines, libsvm
from dlrm.data.sources.files import TableFile, count, csv_parts, look
from dlrm.data.sources.parts import Part, stored
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.sources.reading import Reading
from dlrm.data.sources.source import OnBadRow
from dlrm.data.sources.text import file_fingerprint
from dlrm.errors import InputError, UsageError
from dlrm.terminal import say

FILE_SPLITS = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "val": "validation",
    "test": "test",
}
"""First word of a file's name -> the split that it is, in a folder of files."""


class TableFiles:
    """One file or several with the same columns, as a Source.

    They are by split where that is known; of libsvm files the layout may be known from training.
    `columns` are names that make a line the header.
    """

    def __init__(
        self,
        files: Sequence[Path] | dict[str, list[Path]],
        *,
        known: libsvm.Layout | None = None,
        reading: Reading | None = None,
        columns: Sequence[str] = (),
        bad_rows: OnBadRow = "error",
    ):
        by_split = files if isinstance(files, dict) else {None: list(files)}
        if not any(by_split.values()):
            raise UsageError("no file is named; expected one or more")
        self.reading = reading or Reading()
        self._bad_rows: OnBadRow = bad_rows
        self._files: list[tuple[str | None, TableFile]] = [
            (split, look(path, self.reading, columns))
            for split, paths in by_split.items()
            for path in paths
        ]
        formats = {file.format for _, file in self._files}
        if "libsvm" in formats and len(formats) > 1:
            other = next(file.path for _, file in self._files if file.format != "libsvm")
            raise InputError("is no libsvm file, as others here are", file=other)
        self.name = "libsvm" if "libsvm" in formats else "table"
        self._layout = known
        self._check_names()

    @property
    def layout(self) -> libsvm.Layout | None:
        """How the entries of libsvm lines become columns; None for other formats."""
        if self.name == "libsvm" and self._layout is None:
            self._layout = libsvm.find_layout([file.path for _, file in self._files])
        return self._layout

    def schema(self) -> Columns | None:
        """Return what the columns of libsvm lines are; None for other formats."""
        return self.layout.schema() if self.layout else None

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the first text; none where only reading tells."""
        return next((file.names for _, file in self._files if file.names), ())

    def fingerprint(self) -> dict[str, Any]:
        """Return sizes and hashes of the files."""
        files = [{"split": split, **file_fingerprint(file.path)} for split, file in self._files]
        return {"source": self.name, "files": files}

    def rows(self) -> int:
        """Return about how many rows there are."""
        return sum(count(file) for _, file in self._files)

    def read(self) -> Iterator[pl.DataFrame]:
        """Yield the rows in order."""
        with TemporaryDirectory(prefix="dlrm-") as folder:
            table = self.table(Path(folder), lambda _: None)
            yield from table.blocks(list(table.types))

    def table(self, folder: Path, advance: Callable[[int], None]) -> RawTable:
        """Return the rows as Parquet parts; see `Table`."""
        self._say_shapes()
        parts: list[Part] = []
        for split, file in self._files:
            for part in self._parts(file, folder):
                parts.append(replace(stored(part, folder), split=split))
                advance(part.rows)
        return RawTable(tuple(parts))

    def _parts(self, file: TableFile, folder: Path) -> Iterable[Part]:
        if file.format == "csv":
            return csv_parts(file, folder, self._bad_rows)
        if file.format == "json":
            return json_lines.parts(file.path, self._bad_rows)
        if self.layout is None:
            return [Part(file.path.absolute(), count(file), file.path)]
        return libsvm.parts(file.path, self.layout)

    def _say_shapes(self) -> None:
        """Say once what is out of the ordinary in the shape of texts."""
        shapes: dict[str, list[Path]] = {}
        for _, file in self._files:
            for note in file.shape.notes if file.shape else ():
                shapes.setdefault(note, []).append(file.path)
        for note, paths in shapes.items():
            others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            say([f"{paths[0]}{others}: {note}"])

    def _check_names(self) -> None:
        """Say which column is missing before any file is read."""
        named = [file for _, file in self._files if file.names]
        for file in named[1:]:
            first = named[0]
            for shape, other in ((first, file), (file, first)):
                if lacking := [name for name in shape.names if name not in other.names]:
                    problem = f"lacks this column, which {shape.path} has"
                    raise InputError(problem, file=other.path, column=lacking[0])


def in_folder(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder by split, from their names: train*, valid*, test*.

    Raises:
        InputError: The folder has no training file.

    """
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        word = path.name.lower().replace("-", ".").replace("_", ".").split(".")[0]
        if path.is_file() and word in FILE_SPLITS:
            files.setdefault(FILE_SPLITS[word], []).append(path)
    if "train" not in files:
        problem = "is a folder, but neither a prepared dataset nor one with a file named train.*"
        raise InputError(f'{problem}; for the raw files in it write "{folder}/*"', file=folder)
    return dict(sorted(files.items(), key=lambda item: list(FILE_SPLITS.values()).index(item[0])))
