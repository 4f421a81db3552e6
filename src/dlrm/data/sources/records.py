"""The records of a text, read one by one: where each stands, and what is wrong with one.

Polars reads the text, much faster; what it cannot say is the line of a row, once texts in quotes
have newlines in them, or which line it stumbled over. Bad records that are to be left out are left
out here.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from dlrm.data.sources.reading import SPACES, Shape
from dlrm.data.sources.text import explained, open_bytes, scan_lines
from dlrm.errors import InputError

LONGEST_FIELD = 1 << 26
"""Characters of a text, at most: whatever is longer is a quote that does not end."""
_TOKEN = re.compile(r'"((?:[^"]|"")*)"(?=\s|$)|(\S+)')
csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD))


class Record(NamedTuple):
    """A record of a text."""

    first: int
    """The line on which it begins, counted from 1."""
    fields: list[str] | csv.Error
    """None of a blank line; of a record that is no CSV the error that says so."""
    lines: list[str]


def records(
    lines: Iterable[str], separator: str, skip: int = 0, comment: str | None = None
) -> Iterator[Record]:
    """Yield the records of some lines, but for the first lines and those that begin as comments."""
    number, record = 0, list[str]()

    def records_lines() -> Iterator[str]:
        nonlocal number
        for number, line in enumerate(lines, start=1):
            # Within a record, in quotes, a line is never a comment.
            if number > skip and not (comment and not record and line.startswith(comment)):
                record.append(line)
                yield line if line.endswith("\n") else line + "\n"

    single = len(separator.encode()) == 1
    source = records_lines()
    reader = csv.reader(source, delimiter=separator, strict=True) if single else None
    while True:
        record = list[str]()
        try:
            fields = next(reader) if reader is not None else words(next(source), separator)
        except StopIteration:
            return
        except csv.Error as error:
            fields = error
        yield Record(number - len(record) + 1, fields, record)


def words(line: str, separator: str) -> list[str]:
    """Return the fields of a line that are separated by several characters or by blanks."""
    line = line.rstrip("\r\n")
    if separator != SPACES:
        return line.split(separator) if line else []
    return [quoted.replace('""', '"') or plain for quoted, plain in _TOKEN.findall(line)]


@dataclass(frozen=True, slots=True)
class Fault:
    """A record that is none of the table's."""

    place: int
    """Place of the record among all of the file, counted from 0."""
    reason: str
    error: InputError


@dataclass(frozen=True, slots=True)
class Text:
    """A text with records, whose separator is one character."""

    file: Path
    """The user's, for errors."""
    plain: Path
    """What is read: the file, or what it was unpacked or turned into."""
    shape: Shape

    def records(self) -> Iterator[Record]:
        """Yield its records; none of a blank line, unless that is a row of a single column."""
        shape, single = self.shape, len(self.shape.names) == 1
        with explained(self.file), open_bytes(self.plain) as stream:
            decoded = (line.decode("utf-8-sig", errors="replace") for line in stream)
            for record in records(decoded, shape.separator, shape.skip, shape.comment):
                if single or record.fields:
                    yield record

    def lines(self) -> Iterator[int]:
        """Yield the line of each record."""
        return (record.first for record in self.records())

    def is_even(self) -> bool:
        """Whether no record has too few fields, where none has too many.

        False also where only a closer look tells: at blank lines, comments, odd quotes, and texts
        of several lines.
        """
        shape = self.shape
        if shape.comment:
            return False
        mark = f"\\x{ord(shape.separator):02x}"
        lines = scan_lines(self.plain, skip_lines=shape.skip)
        # Nothing but its quotes is left of a quoted text, which stands between separators.
        line = pl.col("line").str.replace_all(r'"[^"]*"', "\0")
        even = line.str.count_matches(mark) == len(shape.names) - 1 + shape.trailing
        odd = line.str.contains(rf'"|[^{mark}\x00\r]\x00|\x00[^{mark}\x00\r]')
        return lines.select((even & ~odd).fill_null(value=False).all()).collect().item()

    def rows(self, *, quotes: bool, strict: bool = False) -> Iterator[list[str] | Fault]:
        """Yield the fields of each record, or what is wrong with it, which is raised if `strict`.

        With `quotes` a quote inside a text is wrong.
        """
        for place, record in enumerate(self.records()):
            row = self._checked(place, record, quotes=quotes)
            if strict and isinstance(row, Fault):
                raise row.error
            yield row

    def _checked(self, place: int, record: Record, *, quotes: bool) -> "list[str] | Fault":
        def fault(reason: str, problem: str) -> Fault:
            return Fault(place, reason, InputError(problem, file=self.file, line=record.first))

        shape, fields, raw = self.shape, record.fields, "".join(record.lines)
        if isinstance(fields, csv.Error):
            problem = f"is not CSV: {fields}; a quote inside a text is written twice"
            if "unexpected end" in str(fields) or "limit" in str(fields):
                raise fault("quotes", problem).error
            return fault("quotes", problem)
        width = len(shape.names)
        if shape.trailing and len(fields) == width + 1 and not fields[-1]:
            fields = fields[:-1]
        fields = fields or [""]
        if len(fields) != width:
            plural = "" if len(fields) == 1 else "s"
            problem = f"has {len(fields)} field{plural}, expected {width}"
            if raw.startswith("#") and shape.comment is None:
                problem += "; if lines that begin with # are comments: --comment '#'"
            elif len(fields) > width:
                problem += "; a text with a separator in it needs quotes"
            return fault("too many fields" if len(fields) > width else "too few fields", problem)
        mark = re.escape(shape.separator)
        if quotes and re.search(rf'[^{mark}"\r\n]"(?![{mark}"\r\n]|$)', raw):
            problem = "has a quote inside a text: put the text in quotes, and write it twice"
            return fault("quotes", problem)
        return fields

    def check_encoding(self) -> None:
        """Raise an InputError at the first line that is not UTF-8, or where the file is damaged."""
        number, names = 0, self.shape.names
        with explained(self.file, lambda: number), open_bytes(self.plain) as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    place = line[: error.start].count(self.shape.separator.encode())
                    problem = (
                        f"byte 0x{line[error.start]:02x} is not UTF-8 text; if the file is "
                        f"Latin-1, write it anew: iconv -f LATIN1 -t UTF-8 {self.file.name} > "
                        "new.csv"
                    )
                    column = names[min(place, len(names) - 1)]
                    raise InputError(problem, file=self.file, line=number, column=column) from error
