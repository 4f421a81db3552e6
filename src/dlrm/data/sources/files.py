"""Files of a table: which format each has, and how it becomes Parquet.

CSV and its kin give texts; JSON lines and Parquet keep their types; libsvm and its kin are read by
a layout. Texts may be compressed.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import polars as pl
import polars.selectors as cs

from dlrm.data.sources import json_lines
from dlrm.data.sources.libsvm import is_libsvm
from dlrm.data.sources.parts import Part, explained_parquet, line_of, next_file
from dlrm.data.sources.printed import AsCsv, of_words, printed
from dlrm.data.sources.reading import Reading, Shape
from dlrm.data.sources.records import Fault, Text
from dlrm.data.sources.shape import recognise
from dlrm.data.sources.source import OnBadRow
from dlrm.data.sources.text import (
    DAMAGE,
    LOOKED_AT_LINES,
    check_file,
    compression_of,
    estimate_lines,
    explained,
    open_bytes,
    text_name,
    unpack,
)
from dlrm.errors import InputError

_HEAD_BYTES = 1 << 20
_RECORDS = 1 << 16
"""Records that are turned into a frame together, where they are read one by one."""
_OTHERS = {
    b"ARROW1": "an Arrow file",
    b"ORC": "an ORC file",
    b"SQLite": "a database",
    b"\xfd7zXZ": "compressed by xz",
}
"""First bytes of a file -> what it is instead of a table."""
_EXPECTED = "expected CSV, TSV, JSON lines or libsvm (plain, .gz, .bz2, .zip or .zst), or Parquet"
_TRAILING = "\0after the last"
"""Column of what stands behind the last separator of each line."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file and how it is read."""

    path: Path
    format: Literal["csv", "json", "parquet", "libsvm"]
    shape: Shape | None = None
    """csv: how its records are read."""
    as_csv: AsCsv | None = None
    """csv: what turns its lines into CSV first."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of a CSV file; none where only reading tells."""
        return self.shape.names if self.shape else ()


def look(path: Path, reading: Reading | None = None, columns: Sequence[str] = ()) -> TableFile:
    """Return how a file is read, from its first bytes.

    Raises:
        InputError: It is missing, empty, no text, or its header names a column twice.

    """
    check_file(path)
    reading = reading or Reading()
    with path.open("rb") as stream:
        begin = stream.read(8)
    if begin.startswith(b"PAR1"):
        return TableFile(path, "parquet")
    for magic, what in _OTHERS.items():
        if begin.startswith(magic):
            raise InputError(f"is {what}, {_EXPECTED}", file=path)
    head = _head(path)
    if json_lines.is_json(head, path):
        return TableFile(path, "json")
    if (table := printed(head, path)) is not None:
        what, as_csv = table
        plain = "".join(as_csv(head.splitlines()))
        shape = recognise(plain, path, replace(reading, separator=","), columns)
        return TableFile(path, "csv", replace(shape, notes=(what, *shape.notes)), as_csv)
    if reading == Reading() and is_libsvm(head.splitlines()):
        return TableFile(path, "libsvm")
    if "\r" in head.split("\n", 1)[0].rstrip("\r"):
        problem = "its lines end in CR alone, expected LF: tr '\\r' '\\n' < OLD > NEW"
        raise InputError(problem, file=path, line=1)
    tabs = text_name(path).endswith(".tsv")
    shape = recognise(head, path, reading, columns, tabs=tabs)
    if len(shape.separator.encode()) == 1:
        return TableFile(path, "csv", shape)
    as_csv = of_words(shape.separator, shape.comment)
    return TableFile(path, "csv", replace(shape, separator=","), as_csv)


def count(file: TableFile) -> int:
    """Return how many rows a file has; about how many if it is a text.

    Raises:
        InputError: It is no Parquet file, though it begins like one.

    """
    if file.format != "parquet":
        return estimate_lines(file.path)
    with explained_parquet(file.path):
        return pl.scan_parquet(file.path, glob=False).select(pl.len()).collect().item()


def csv_parts(file: TableFile, target: Path, on_bad_row: OnBadRow) -> Iterable[Part]:
    """Return the rows of a CSV file, in memory or in a Parquet file in the target folder.

    Raises:
        InputError: A record is none of the table's; names its line.

    """
    shape, plain = file.shape, file.path
    assert shape is not None
    if file.as_csv:
        with explained(file.path), open_bytes(file.path) as stream:
            # A byte that is no text stays one, for errors to name.
            lines = (line.decode("utf-8-sig", errors="surrogateescape") for line in stream)
            with (plain := next_file(target, ".txt")).open("wb") as out:
                csv_lines = file.as_csv(lines)
                out.writelines(line.encode(errors="surrogateescape") for line in csv_lines)
    elif compression_of(plain) not in (None, "gzip"):
        # Polars reads gzip itself.
        unpack(plain, plain := next_file(target, ".txt"))
    text, part = Text(file.path, plain, shape), next_file(target)
    names = (*shape.names, _TRAILING) if shape.trailing else shape.names
    rows = pl.scan_csv(
        plain,
        glob=False,
        separator=shape.separator,
        has_header=False,
        skip_lines=shape.skip,
        comment_prefix=shape.comment,
        schema=dict.fromkeys(names, pl.String),
        # The first line may be blank.
        missing_columns="insert",
    )
    try:
        rows.sink_parquet(part)
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        text.check_encoding()
        return _one_by_one(text, on_bad_row, quotes=True)
    table = pl.scan_parquet(part, glob=False)
    # Polars fills short lines up with missing values, and takes a blank one for a short one; but a
    # blank line is a row of a single column.
    doubted = cs.by_name(shape.names[-1]).is_null() & (len(shape.names) > 1)
    wide = cs.by_name(_TRAILING).fill_null("") != "" if shape.trailing else pl.lit(value=False)
    counts = table.select(rows=pl.len(), doubted=doubted.any(), wide=wide.any()).collect()
    height, doubted, wide = counts.row(0)
    # Of many rows few are looked at in vain: those whose last value is missing.
    if wide or (doubted and not text.is_even()):
        part.unlink()
        return _one_by_one(text, on_bad_row, quotes=False)
    if shape.trailing:
        # Into another file, and only then over this one.
        table.select(cs.by_name(*shape.names)).sink_parquet(narrow := part.with_suffix(".kept"))
        narrow.replace(part)
    return [Part(part, height, file.path, line_of=line_of(text.lines()))]


def _one_by_one(text: Text, on_bad_row: OnBadRow, *, quotes: bool) -> Iterator[Part]:
    """Yield the records of a text that are no bad ones, each looked at by itself, in memory."""
    first, place = 1, line_of(text.lines())
    schema = dict.fromkeys(text.shape.names, pl.String)
    rows = text.rows(quotes=quotes, strict=on_bad_row == "error")
    while (some := list(islice(rows, _RECORDS))) or first == 1:
        faults = [row for row in some if isinstance(row, Fault)]
        good = [row for row in some if not isinstance(row, Fault)]
        frame = pl.DataFrame(good, schema=schema, orient="row")
        part = Part(frame.with_columns(pl.all().replace("", None)), len(good), text.file, first)
        left_out = tuple(replace(fault, place=fault.place - first + 1) for fault in faults)
        yield replace(part, line_of=place, faults=left_out)
        first += max(len(some), 1)


def _wide(head: bytes) -> str:
    """Return which encoding of 2 or 4 bytes a character a text is in; empty where in none."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    # Without a mark of byte order every other byte of plain letters is 0.
    even, odd = (set(head[start:64:2]) for start in (0, 1))
    return "UTF-16LE" if odd == {0} and 0 not in even else "UTF-16BE" if even == {0} else ""


def _head(path: Path) -> str:
    lines: list[bytes] = []
    length = 0
    with explained(path, lambda: 1), open_bytes(path, lines=LOOKED_AT_LINES) as stream:
        try:
            while length < _HEAD_BYTES and (line := stream.readline()):
                lines.append(line)
                length += len(line)
        except DAMAGE:
            # Further down it is found and named when all of it is read.
            if not lines:
                raise
    if not lines:
        raise InputError("the file is empty, expected one sample a line", file=path)
    head = b"".join(lines)
    if encoding := _wide(head):
        problem = f"is {encoding}, expected UTF-8: iconv -f {encoding} -t UTF-8 OLD > NEW"
        raise InputError(problem, file=path)
    if b"\0" in lines[0]:
        raise InputError(f"is no text, {_EXPECTED}", file=path, line=1)
    try:
        lines[0].decode()
    except UnicodeDecodeError as error:
        problem = "is not UTF-8 text; if it is Latin-1: iconv -f LATIN1 -t UTF-8 OLD > NEW"
        raise InputError(problem, file=path, line=1) from error
    return head.decode("utf-8-sig", errors="replace")
