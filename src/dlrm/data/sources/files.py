"""Files of a table: which format each has, and how it becomes Parquet.

CSV and TSV (any of , tab ; | between fields, quotes as usual, .gz too) give texts; Parquet keeps
its types; libsvm and its kin are read by a layout.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl
import polars.selectors as cs

from dlrm.data.features.texts import MISSING_TEXTS
from dlrm.data.sources import libsvm
from dlrm.data.sources.entries import Entries, is_libsvm
from dlrm.data.sources.raw_table import Part
from dlrm.data.sources.records import (
    GZIP_ERRORS,
    blanks,
    check_quotes,
    check_text,
    open_text,
)
from dlrm.data.sources.text import check_file, estimate_lines
from dlrm.errors import InputError

Format = Literal["csv", "parquet", "libsvm"]
_SEPARATORS = (",", "\t", ";", "|")
_DATA = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?$")
_HEAD_BYTES = 1 << 20
_OTHERS = {
    b"PK\x03\x04": "a zip file (as Excel's .xlsx is)",
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
    b"SQLite": "a database",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
}
"""First bytes of a file -> what it is instead of a table."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file and how it is read."""

    path: Path
    format: Format
    separator: str = ","
    names: tuple[str, ...] = ()
    """csv: the columns."""
    header: bool = True
    """csv: whether the first line names them."""


def look(path: Path) -> TableFile:
    """Return how a file is read, from its first bytes.

    Raises:
        InputError: It is missing, empty, no text, or its header names a column twice.

    """
    check_file(path)
    with path.open("rb") as stream:
        begin = stream.read(8)
    if begin.startswith(b"PAR1"):
        return TableFile(path, "parquet")
    for magic, what in _OTHERS.items():
        if begin.startswith(magic):
            problem = f"is {what}, expected CSV, TSV, libsvm (plain or .gz) or Parquet"
            raise InputError(problem, file=path)
    head = _head(path)
    first = head.split("\n", 1)[0].rstrip("\r")
    if is_libsvm(head.splitlines()):
        return TableFile(path, "libsvm")
    if not first.strip():
        problem = "is blank, expected the names of the columns or the first row"
        raise InputError(problem, file=path, line=1)
    if "\r" in first:
        problem = "its lines end in CR alone, expected LF: tr '\\r' '\\n' < OLD > NEW"
        raise InputError(problem, file=path, line=1)
    separator = max(_SEPARATORS, key=lambda tried: len(_records(head, tried, 1)[0]))
    if path.name.removesuffix(".gz").endswith(".tsv"):
        separator = "\t"
    rows = _records(head, separator, 2)
    names = [name.strip() for name in rows[0]]
    header = _is_header(names, [field.strip() for field in rows[1]] if rows[1:] else None)
    if header:
        # A written index has no name.
        names = [name or f"column {number}" for number, name in enumerate(names, start=1)]
    else:
        names = [f"c{number}" for number in range(len(names))]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError("the header names this column twice", file=path, line=1, column=twice[0])
    return TableFile(path, "csv", separator, tuple(names), header)


def to_parquet(
    file: TableFile,
    target: Path,
    layout: libsvm.Layout | None,
    read: Iterable[Entries] | None = None,
) -> list[Part]:
    """Turn a file into Parquet parts.

    Args:
        file: From `look`.
        target: A folder, which is there.
        layout: For libsvm.
        read: For libsvm: the entries, where they are kept.

    Raises:
        InputError: The file is damaged; names the line.

    """
    if file.format == "libsvm":
        return _libsvm(file, target, layout or libsvm.find_layout([file.path]), read)
    out = target / f"{len(list(target.iterdir())):06}.parquet"
    if file.format == "parquet":
        return [Part(file.path.absolute(), count(file), file.path)]
    with _explained(file):
        pl.scan_csv(
            file.path,
            glob=False,
            separator=file.separator,
            has_header=file.header,
            new_columns=list(file.names),
            infer_schema=False,
        ).sink_parquet(out)
    rows = _without_blanks(file, out)
    # A single column has no quotes worth looking for, and a blank line is a row of it.
    separator = file.separator if len(file.names) > 1 else None
    return [Part(out, rows, file.path, 1 + file.header, lines=True, separator=separator)]


def count(file: TableFile) -> int:
    """Return how many rows a file has; about how many if it is a text.

    Raises:
        InputError: It is no Parquet file, though it begins like one.

    """
    if file.format != "parquet":
        return estimate_lines(file.path)
    with _explained(file):
        return pl.scan_parquet(file.path, glob=False).select(pl.len()).collect().item()


def _without_blanks(file: TableFile, out: Path) -> int:
    """Leave out rows that are blank lines, check that none is too short; return the rows."""
    last = cs.by_name(file.names[-1])
    rows, empty = pl.scan_parquet(out).select(pl.len(), last.null_count()).collect().row(0)
    if not empty or len(file.names) == 1:
        return rows
    # Polars fills short lines up with missing values, and takes a blank one for a short one.
    blank_rows = blanks(file.path, file.separator, len(file.names), skip=int(file.header))
    if blank_rows:
        frame = pl.read_parquet(out).with_row_index("\0row")
        frame = frame.filter(~pl.col("\0row").is_in(blank_rows)).drop("\0row")
        frame.write_parquet(out)
        rows = frame.height
    return rows


def _libsvm(
    file: TableFile, target: Path, layout: libsvm.Layout, read: Iterable[Entries] | None
) -> list[Part]:
    parts, line = [], 1
    for frame in libsvm.frames(file.path, layout, read):
        out = target / f"{len(list(target.iterdir())):06}.parquet"
        frame.write_parquet(out)
        parts.append(Part(out, frame.height, file.path, line, lines=True))
        line += frame.height
    return parts


@contextmanager
def _explained(file: TableFile) -> Iterator[None]:
    """Turn what Polars says of a damaged file into an InputError that names the line."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if file.format == "csv":
            check_text(file.path, file.separator, file.names)
            blanks(file.path, file.separator, len(file.names), skip=0)
            check_quotes(file.path, file.separator)
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"cannot be read as {file.format}: {reason}", file=file.path) from error


def _head(path: Path) -> str:
    """Return the first lines of a text, up to a megabyte."""
    try:
        with open_text(path) as stream:
            head = stream.read(_HEAD_BYTES)
            if len(head) == _HEAD_BYTES:
                # A first line that is longer than that is read to its end.
                head += stream.readline()
    except GZIP_ERRORS as error:
        head = b""
        with open_text(path) as stream:
            try:
                head = stream.readline()
            except GZIP_ERRORS:
                problem = "the gzip file is damaged or truncated; copy or download it again"
                raise InputError(problem, file=path, line=1) from error
    if not head:
        raise InputError("the file is empty, expected one sample a line", file=path)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        problem = f"is UTF-16, expected UTF-8: iconv -f UTF-16 -t UTF-8 {path.name} > new.csv"
        raise InputError(problem, file=path)
    first = head.split(b"\n", 1)[0]
    if b"\0" in first:
        problem = "is no text, expected CSV, TSV, libsvm (plain or .gz) or Parquet"
        raise InputError(problem, file=path, line=1)
    try:
        first.decode()
    except UnicodeDecodeError as error:
        problem = "is not UTF-8 text; if it is Latin-1: iconv -f LATIN1 -t UTF-8 OLD > NEW"
        raise InputError(problem, file=path, line=1) from error
    # What is wrong further down is found, and named, when all of it is read.
    return head.decode("utf-8-sig", errors="replace")


def _records(head: str, separator: str, count: int) -> list[list[str]]:
    """Return the first few records that are not blank."""
    rows = []
    reader = csv.reader(io.StringIO(head, newline=""), delimiter=separator)
    try:
        for fields in reader:
            if fields:
                rows.append(fields)
            if len(rows) == count:
                break
    except csv.Error:
        # Further down; the first record is there, or the line is one field.
        return rows or [[head]]
    return rows


def _is_header(names: Sequence[str], row: Sequence[str] | None) -> bool:
    """Whether the first record names the columns: names are texts, at least above some numbers."""
    if not any(map(_DATA.match, names)):
        # Only an index may lack its name; a row of values may lack any.
        return all(names[1:])
    if len(names) > 2 and list(names) == [str(number) for number in range(len(names))]:
        return True
    if row is None:
        return False
    pairs = zip(names, row, strict=False)
    return any(
        name not in MISSING_TEXTS and not _DATA.match(name) and _DATA.match(below)
        for name, below in pairs
    )
