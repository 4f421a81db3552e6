"""Files of a table: which format each has, and how it becomes Parquet.

CSV and its kin give texts; JSON lines and Parquet keep their types; libsvm and its kin are read by
a layout. Texts may be compressed.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import polars as pl
import polars.selectors as cs

from dlrm.data.sources import json_lines, libsvm
from dlrm.data.sources.entries import Entries, is_libsvm
from dlrm.data.sources.printed import Kind, as_csv, printed_kind
from dlrm.data.sources.raw_table import Part
from dlrm.data.sources.reading import SPACES, Reading
from dlrm.data.sources.records import Fault, Text
from dlrm.data.sources.shape import Shape, recognise
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

Format = Literal["csv", "json", "parquet", "libsvm"]
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
_WIDTH, _ROW = "\0fields", "\0row"
"""Columns of how many fields a line has, and of its number."""


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file and how it is read."""

    path: Path
    format: Format
    shape: Shape | None = None
    """csv: how its records are read."""
    printed: Kind | None = None
    """csv: what is turned into CSV first."""

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
    if (kind := printed_kind(head, path)) is not None:
        plain = "".join(as_csv(kind, head.splitlines(), path))
        shape = recognise(plain, path, replace(reading, separator=","), columns)
        what = "ARFF" if kind == "arff" else "a table with bars and rules, as psql prints it"
        return TableFile(path, "csv", replace(shape, notes=(what, *shape.notes)), kind)
    if reading == Reading() and is_libsvm(head.splitlines()):
        return TableFile(path, "libsvm")
    first = head.split("\n", 1)[0].rstrip("\r")
    if "\r" in first:
        problem = "its lines end in CR alone, expected LF: tr '\\r' '\\n' < OLD > NEW"
        raise InputError(problem, file=path, line=1)
    tabs = text_name(path).endswith(".tsv")
    return TableFile(path, "csv", recognise(head, path, reading, columns, tabs=tabs))


def to_parquet(
    file: TableFile,
    target: Path,
    layout: libsvm.Layout | None,
    read: Iterable[Entries] | None = None,
    on_bad_row: OnBadRow = "error",
) -> list[Part]:
    """Turn a file into Parquet parts."""
    match file.format:
        case "parquet":
            return [Part(file.path.absolute(), count(file), file.path)]
        case "libsvm":
            return _libsvm(file, target, layout or libsvm.find_layout([file.path]), read)
        case "json":
            return json_lines.parts(file.path, target, on_bad_row)
        case "csv":
            return _csv(file, target, on_bad_row)


def count(file: TableFile) -> int:
    """Return how many rows a file has; about how many if it is a text.

    Raises:
        InputError: It is no Parquet file, though it begins like one.

    """
    if file.format != "parquet":
        return estimate_lines(file.path)
    with _explained(file.path):
        return pl.scan_parquet(file.path, glob=False).select(pl.len()).collect().item()


def next_part(target: Path) -> Path:
    """Return the name of one more Parquet part in a folder."""
    return target / f"{len(list(target.iterdir())):06}.parquet"


def _csv(file: TableFile, target: Path, on_bad_row: OnBadRow) -> list[Part]:
    shape = file.shape
    assert shape is not None
    plain = file.path
    if file.printed:
        plain = target / f"{len(list(target.iterdir())):06}.txt"
        with explained(file.path), open_bytes(file.path) as stream, plain.open("wb") as out:
            # A byte that is no text stays one, for errors to name.
            lines = (line.decode("utf-8-sig", errors="surrogateescape") for line in stream)
            converted = as_csv(file.printed, lines, file.path)
            out.writelines(line.encode(errors="surrogateescape") for line in converted)
    # Polars reads gzip itself.
    if compression_of(plain) not in (None, "gzip"):
        unpack(plain, plain := target / f"{len(list(target.iterdir())):06}.txt")
    text, out = Text(file.path, plain, shape), next_part(target)
    columns = _by_character(text) if shape.by_character else _by_words(text)
    try:
        columns.sink_parquet(out)
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        text.check_encoding()
        return _good_records(text, target, on_bad_row)
    return [_checked(text, out, on_bad_row)]


def _by_character(text: Text) -> pl.LazyFrame:
    shape = text.shape
    names = (*shape.names, _TRAILING) if shape.trailing else shape.names
    return pl.scan_csv(
        text.plain,
        glob=False,
        separator=shape.separator,
        has_header=False,
        skip_lines=shape.skip,
        comment_prefix=shape.comment,
        schema=dict.fromkeys(names, pl.String),
        # The first line may be blank.
        missing_columns="insert",
    )


def _by_words(text: Text) -> pl.LazyFrame:
    """Return the records of a text whose fields are separated by several characters or blanks."""
    shape = text.shape
    lines = pl.scan_csv(
        text.plain,
        glob=False,
        separator="\0",
        quote_char=None,
        has_header=False,
        skip_lines=shape.skip,
        comment_prefix=shape.comment,
        schema={"line": pl.String},
    )
    line = pl.col("line").str.strip_chars_end("\r")
    if shape.separator == SPACES:
        words = line.str.extract_all(r'"(?:[^"]|"")*"|\S+')
        words = words.list.eval(pl.element().str.strip_chars('"').str.replace_all('""', '"'))
    else:
        words = line.str.split(shape.separator)
    fields = lines.select(fields=words)
    names = (*shape.names, _TRAILING) if shape.trailing else shape.names
    # What stands behind the last column makes the record too long, as does the null of a short one.
    return fields.select(
        *(
            pl.col("fields").list.get(at, null_on_oob=True).replace("", None).alias(name)
            for at, name in enumerate(names)
        ),
        pl.col("fields").list.len().fill_null(0).alias(_WIDTH),
    )


def _checked(text: Text, out: Path, on_bad_row: OnBadRow) -> Part:
    """Return the part of records that Polars has read, without those that are none."""
    shape, table = text.shape, pl.scan_parquet(out, glob=False)
    width = len(shape.names)
    if not shape.by_character:
        # A separator at the end of a line may be left out.
        full = pl.col(_WIDTH).is_between(width, width + shape.trailing)
    elif width == 1:
        # A blank line is a row of a single column.
        full = pl.lit(value=True)
    else:
        # Polars fills short lines up with missing values, and takes a blank one for a short one.
        full = cs.by_name(shape.names[-1]).is_not_null()
    more = cs.by_name(_TRAILING).fill_null("") != "" if shape.trailing else pl.lit(value=False)
    counts = table.select(rows=pl.len(), doubted=(~full).sum(), wide=more.sum()).collect()
    rows, doubted, wide = counts.row(0)
    faults, left_out = list[Fault](), list[int]()
    # Of many rows few are looked at in vain: those whose last value is missing.
    closely = wide or (doubted and not text.is_even(rows))
    for row, (fields, fault) in enumerate(text.faults(quotes=False) if closely else ()):
        if fault is not None:
            faults.append(_passed(fault, on_bad_row))
        if fault is not None or fields is None:
            left_out.append(row)
    if left_out:
        table = table.with_row_index(_ROW).filter(~pl.col(_ROW).is_in(left_out))
    if left_out or table.collect_schema().names() != list(shape.names):
        # Into another file, and only then over this one.
        table.select(cs.by_name(*shape.names)).sink_parquet(kept := out.with_suffix(".kept"))
        kept.replace(out)
    return Part(out, rows - len(left_out), text.file, lines_of=text.lines, faults=tuple(faults))


def _good_records(text: Text, target: Path, on_bad_row: OnBadRow) -> list[Part]:
    """Return the parts of a text that Polars does not read: record by record, without bad ones."""
    parts: list[Part] = []
    rows, faults, first = list[list[str]](), list[Fault](), 0
    schema = dict.fromkeys(text.shape.names, pl.String)

    def finish() -> None:
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        frame.with_columns(pl.all().replace("", None)).write_parquet(out := next_part(target))
        parts.append(
            Part(out, len(rows), text.file, first + 1, lines_of=text.lines, faults=tuple(faults))
        )

    for fields, fault in text.faults(quotes=True):
        if fault is not None:
            faults.append(replace(_passed(fault, on_bad_row), place=fault.place - first))
        elif fields is not None:
            rows.append(fields)
        if len(rows) == _RECORDS:
            finish()
            first, rows, faults = first + len(rows) + len(faults), [], []
    if rows or faults or not parts:
        finish()
    return parts


def _passed(fault: Fault, on_bad_row: OnBadRow) -> Fault:
    """Return a fault that is to be left out, or raise it."""
    if on_bad_row == "error":
        raise fault.error
    return fault


def _libsvm(
    file: TableFile, target: Path, layout: libsvm.Layout, read: Iterable[Entries] | None
) -> list[Part]:
    parts, line = [], 1
    for frame in libsvm.frames(file.path, layout, read):
        out = next_part(target)
        frame.write_parquet(out)
        parts.append(Part(out, frame.height, file.path, line, lines=True))
        line += frame.height
    return parts


def _wide(head: bytes) -> str:
    """Return which encoding of 2 or 4 bytes a character a text is in; empty where in none."""
    for encoding, mark in (("UTF-32", codecs.BOM_UTF32_LE), ("UTF-32", codecs.BOM_UTF32_BE)):
        if head.startswith(mark):
            return encoding
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    # Without a mark of byte order every other byte of plain letters is 0.
    even, odd = (set(head[start:64:2]) for start in (0, 1))
    return "UTF-16LE" if odd == {0} and 0 not in even else "UTF-16BE" if even == {0} else ""


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what Polars says of a damaged Parquet file into an InputError."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"cannot be read as parquet: {reason}", file=path) from error


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
