"""Where a raw table comes from: files, a frame in memory, or a log with a source of its own."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import polars as pl

from dlrm.data.criteo import file_fingerprint
from dlrm.data.source import Source
from dlrm.data.tabular import libsvm
from dlrm.data.tabular.columns import Column, Columns, Values
from dlrm.data.tabular.entries import Entries
from dlrm.data.tabular.files import TableFile, count, look, to_parquet
from dlrm.data.tabular.frames import to_polars
from dlrm.data.tabular.raw import Part, RawTable
from dlrm.errors import ConfigError, InputError

FILE_SPLITS = {
    "train": "train",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "val": "validation",
    "test": "test",
}
"""First word of a file's name -> the split that it is, in a folder of files."""


class Table(Protocol):
    """Something that can become a raw table."""

    kind: str
    """`table`, `libsvm`, or the name of a source."""

    def fingerprint(self) -> dict[str, Any]:
        """Return JSON-ready values that change whenever the rows would."""
        ...

    def rows(self) -> int:
        """Return about how many rows there are."""
        ...

    def write(self, folder: Path, advance: Callable[[int], None]) -> RawTable:
        """Write the rows as Parquet parts into a folder; `advance` hears of rows as they come."""
        ...

    def layout(self) -> libsvm.Layout | None:
        """Return how the entries of libsvm lines become columns; None for other formats."""
        ...

    def schema(self) -> Columns | None:
        """Return what the columns are where the format says so; None where it does not."""
        ...


class FileTable:
    """One file or several with the same columns.

    Args:
        files: The files; by split where the split is known.
        known: Layout of libsvm files where it is known already, from training.

    Raises:
        InputError: A file is missing, empty, damaged, or not of the first one's format.

    """

    def __init__(
        self,
        files: Sequence[Path] | dict[str, list[Path]],
        *,
        known: libsvm.Layout | None = None,
    ):
        by_split = files if isinstance(files, dict) else {None: list(files)}
        self._files: list[tuple[str | None, TableFile]] = [
            (split, look(path)) for split, paths in by_split.items() for path in paths
        ]
        formats = {file.format for _, file in self._files}
        if "libsvm" in formats and len(formats) > 1:
            other = next(file.path for _, file in self._files if file.format != "libsvm")
            raise InputError("is no libsvm file, as others here are", file=other)
        self.kind = "libsvm" if "libsvm" in formats else "table"
        self._layout = known
        self._kept: dict[Path, list[Entries]] = {}
        self._check_names()

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, as far as the first file tells without being read."""
        return self._files[0][1].names

    @property
    def by_files(self) -> bool:
        """Whether the files say which split they are."""
        return any(split for split, _ in self._files)

    def layout(self) -> libsvm.Layout | None:
        """See `Table`."""
        if self.kind == "libsvm" and self._layout is None:
            self._layout = libsvm.find_layout([file.path for _, file in self._files], self._kept)
        return self._layout

    def schema(self) -> Columns | None:
        """See `Table`."""
        layout = self.layout()
        return layout.schema() if layout else None

    def fingerprint(self) -> dict[str, Any]:
        """See `Table`."""
        files = [{"split": split, **file_fingerprint(file.path)} for split, file in self._files]
        return {"source": self.kind, "files": files}

    def rows(self) -> int:
        """See `Table`."""
        return sum(count(file) for _, file in self._files)

    def write(self, folder: Path, advance: Callable[[int], None]) -> RawTable:
        """See `Table`."""
        parts: list[Part] = []
        for split, file in self._files:
            layout = self.layout()
            made = to_parquet(file, folder, layout, self._kept.pop(file.path, None))
            parts += [replace(part, split=split) for part in made]
            advance(sum(part.rows for part in made))
        return RawTable(tuple(parts))

    def _check_names(self) -> None:
        """Say which column is missing before any file is read."""
        named = [file for _, file in self._files if file.names]
        for file in named[1:]:
            first = named[0]
            for one, other in ((first, file), (file, first)):
                if lacking := [name for name in one.names if name not in other.names]:
                    problem = f"lacks this column, which {one.path} has"
                    raise InputError(problem, file=other.path, column=lacking[0])


class FrameTable:
    """A frame in memory: of Polars, of pandas, or anything Polars makes a frame of."""

    kind = "table"

    def __init__(self, frame: Any):
        frame = to_polars(frame)
        if frame.height == 0:
            raise InputError("has no rows", file="the frame")
        self.frame: pl.DataFrame = frame

    def layout(self) -> None:
        """See `Table`."""

    def schema(self) -> None:
        """See `Table`."""

    def fingerprint(self) -> dict[str, Any]:
        """See `Table`."""
        digest = hashlib.sha256(repr(self.frame.schema).encode())
        digest.update(self.frame.hash_rows().to_numpy().tobytes())
        return {"source": self.kind, "rows": self.frame.height, "sha256": digest.hexdigest()}

    def rows(self) -> int:
        """See `Table`."""
        return self.frame.height

    def write(self, folder: Path, advance: Callable[[int], None]) -> RawTable:
        """See `Table`."""
        out = folder / "000000.parquet"
        self.frame.write_parquet(out)
        advance(self.frame.height)
        return RawTable((Part(out, self.frame.height, "the frame"),))


class SourceTable:
    """A log with a source of its own, such as raw Criteo text, as a table."""

    def __init__(self, source: Source):
        self._source = source
        self.kind: str = source.fingerprint()["source"]

    def schema(self) -> Columns:
        """See `Table`."""
        source = self._source
        why = f"the format {self.kind} says so"
        return Columns(
            label=source.label,
            columns=(
                *(Column(name=name, kind="number", scale="log", why=why) for name in source.dense),
                *(
                    Column(name=name, kind="category", values=Values(min_count=2), why=why)
                    for name in source.categorical
                ),
            ),
        )

    def layout(self) -> None:
        """See `Table`."""

    def fingerprint(self) -> dict[str, Any]:
        """See `Table`."""
        return self._source.fingerprint()

    def rows(self) -> int:
        """See `Table`."""
        return self._source.rows()

    def write(self, folder: Path, advance: Callable[[int], None]) -> RawTable:
        """See `Table`."""
        parts: list[Part] = []
        first = 1
        for number, frame in enumerate(self._source.read()):
            out = folder / f"{number:06}.parquet"
            frame.write_parquet(out)
            parts.append(Part(out, frame.height, self.kind, first))
            first += frame.height
            advance(frame.height)
        if not parts:
            raise ConfigError("the log has no good row")
        return RawTable(tuple(parts))


def in_folder(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder by split, from their names: train*, valid*, test*.

    Raises:
        InputError: The folder has no training file.

    """
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        word = path.name.lower().replace("-", ".").replace("_", ".").split(".")[0]
        if path.is_file() and word in FILE_SPLITS:
            found.setdefault(FILE_SPLITS[word], []).append(path)
    if "train" not in found:
        problem = "is a folder, but neither a prepared dataset nor one with a file named train.*"
        raise InputError(f'{problem}; for the raw files in it write "{folder}/*"', file=folder)
    return dict(sorted(found.items(), key=lambda item: list(FILE_SPLITS.values()).index(item[0])))
