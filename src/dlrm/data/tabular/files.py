"""Files of a table: which format each has, and how it becomes Parquet.

CSV and TSV (any of , tab ; | between fields, quotes as usual, .gz too) give texts; Parquet keeps
its types; libsvm and its kin are read by a layout.
"""

import csv
import gzip
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

import polars as pl

from dlrm.data.tabular import libsvm
from dlrm.data.tabular.raw import Part
from dlrm.data.text import check_file, is_gzip
from dlrm.errors import InputError

Format = Literal["csv", "parquet", "libsvm"]
_SEPARATORS = (",", "\t", ";", "|")
_DATA = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?$")


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
        if stream.read(4) == b"PAR1":
            return TableFile(path, "parquet")
    first = _first_line(path)
    if libsvm.is_libsvm(first):
        return TableFile(path, "libsvm")
    separator = max(_SEPARATORS, key=lambda each: _fields(first, each))
    if path.name.removesuffix(".gz").endswith(".tsv"):
        separator = "\t"
    names = next(csv.reader([first], delimiter=separator))
    header = not any(_DATA.match(name.strip()) or not name.strip() for name in names)
    if not header and len(set(names)) == len(names) and not any(map(_DATA.match, names)):
        # Only a name is missing, as in a written index.
        header = True
        names = [name.strip() or f"column {number}" for number, name in enumerate(names, start=1)]
    if not header:
        names = [f"c{number}" for number in range(len(names))]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError("the header names this column twice", file=path, line=1, column=twice[0])
    return TableFile(path, "csv", separator, tuple(names), header)


def to_parquet(file: TableFile, target: Path, layout: libsvm.Layout | None) -> list[Part]:
    """Turn a file into Parquet parts.

    Args:
        file: From `look`.
        target: A folder, which is there.
        layout: For libsvm.

    Raises:
        InputError: The file is damaged; names the line.

    """
    if file.format == "libsvm":
        return _libsvm(file, target, layout or libsvm.find_layout([file.path]))
    out = target / f"{len(list(target.iterdir())):06}.parquet"
    if file.format == "parquet":
        with _explained(file):
            rows = pl.scan_parquet(file.path, glob=False).select(pl.len()).collect().item()
        return [Part(file.path.absolute(), rows, file.path)]
    with _explained(file):
        pl.scan_csv(
            file.path,
            glob=False,
            separator=file.separator,
            has_header=file.header,
            new_columns=list(file.names),
            infer_schema=False,
        ).sink_parquet(out)
        frame = pl.scan_parquet(out)
        rows, empty = frame.select(pl.len(), pl.col(file.names[-1]).null_count()).collect().row(0)
    if empty and len(file.names) > 1:
        # Polars fills short lines up with missing values, from the last column on.
        _check_widths(file, short=True)
    return [Part(out, rows, file.path, 1 + file.header, lines=True)]


def _libsvm(file: TableFile, target: Path, layout: libsvm.Layout) -> list[Part]:
    parts, line = [], 1
    for frame in libsvm.frames(file.path, layout):
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
            _check_text(file)
            _check_widths(file, short=False)
        said = str(error).strip().splitlines()[0]
        raise InputError(f"cannot be read as {file.format}: {said}", file=file.path) from error


def _check_text(file: TableFile) -> None:
    """Raise an InputError at the first line that is not UTF-8, or where a gzip file ends early."""
    line = 0
    try:
        with _open(file.path) as stream:
            for text in stream:
                line += 1
                text.decode()
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(errors="replace")
        column = file.names[min(before.count(file.separator), len(file.names) - 1)]
        problem = (
            f"byte 0x{error.object[error.start]:02x} is not UTF-8 text; if the file is Latin-1, "
            f"write it anew: iconv -f LATIN1 -t UTF-8 {file.path.name} > new.csv"
        )
        raise InputError(problem, file=file.path, line=line, column=column) from error
    except (EOFError, gzip.BadGzipFile) as error:
        problem = "the gzip file is damaged or truncated here; copy or download it again"
        raise InputError(problem, file=file.path, line=line) from error


def _check_widths(file: TableFile, *, short: bool) -> None:
    """Raise an InputError at the first line with more fields than columns, or fewer."""
    with _open(file.path) as stream:
        reader = csv.reader(io.TextIOWrapper(stream, "utf-8", newline=""), delimiter=file.separator)
        for fields in reader:
            wrong = len(fields) > len(file.names) or (short and len(fields) < len(file.names))
            if wrong and fields:
                problem = f"has {len(fields)} fields, expected {len(file.names)}"
                if len(fields) > len(file.names):
                    problem += "; a text with a separator in it needs quotes"
                raise InputError(problem, file=file.path, line=reader.line_num)


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if is_gzip(path) else path.open("rb")


def _first_line(path: Path) -> str:
    try:
        with _open(path) as stream:
            line = stream.readline(1 << 20)
    except (EOFError, gzip.BadGzipFile) as error:
        problem = "the gzip file is damaged or truncated; copy or download it again"
        raise InputError(problem, file=path, line=1) from error
    try:
        return line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        if line.startswith((b"\xff\xfe", b"\xfe\xff")):
            problem = f"is UTF-16, expected UTF-8: iconv -f UTF-16 -t UTF-8 {path.name} > new.csv"
            raise InputError(problem, file=path) from error
        if b"\0" in line:
            problem = "is no text, expected CSV, TSV, libsvm (plain or .gz) or Parquet"
            raise InputError(problem, file=path) from error
        problem = "is not UTF-8 text; if it is Latin-1: iconv -f LATIN1 -t UTF-8 OLD > NEW"
        raise InputError(problem, file=path, line=1) from error


def _fields(line: str, separator: str) -> int:
    return len(next(csv.reader([line], delimiter=separator), []))
