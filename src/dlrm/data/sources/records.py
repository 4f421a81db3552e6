"""The records of a text, read one by one: where each stands, and what is wrong with one.

Polars reads the text, much faster; what it cannot say is the line of a row, once texts in quotes
have newlines in them, or which line it stumbled over. Bad records that are to be left out are left
out here.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlrm.data.sources.shape import Lines, Shape, fields_of
from dlrm.data.sources.text import explained, open_bytes
from dlrm.errors import InputError

LONGEST_FIELD = 1 << 26
"""Characters of a text, at most: whatever is longer is a quote that does not end."""
_PIECE_BYTES = 4 << 20
_QUOTED = re.compile(rb'"[^"]*"')
csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD))


@dataclass(frozen=True, slots=True)
class Text:
    """A text with records."""

    file: Path
    """The user's, for errors."""
    plain: Path
    """What is read: the file, or what it was unpacked to."""
    shape: Shape

    def records(self) -> Iterator[tuple[int, list[str] | csv.Error, list[str]]]:
        """Yield the line on which each record begins, its fields (none of a blank line), its lines.

        A record that is no CSV is yielded as the error that says so.
        """
        with explained(self.file), open_bytes(self.plain) as stream:
            decoded = (line.decode("utf-8-sig", errors="replace") for line in stream)
            lines = Lines(decoded, self.shape.skip, self.shape.comment)
            for line, fields in fields_of(lines, self.shape.separator):
                yield line, fields, lines.record

    def lines(self) -> NDArray[np.int64]:
        """Return the line of each record that is not blank."""
        return _lines(self, self.plain.stat().st_mtime_ns)

    def is_even(self, rows: int) -> bool:
        """Whether none of so many records has too few fields, where none has too many.

        The separators tell, but for those in quotes, as there are as many as full records have.
        False also where only a closer look tells: at blank lines, comments, and odd quotes.
        """
        shape = self.shape
        if not shape.by_character or shape.comment:
            return False
        mark = re.escape(shape.separator.encode())
        odd = re.compile(rb"[^%b\r\n\0]\0|\0[^%b\r\n\0]" % (mark, mark))
        separators, rest, piece = 0, b"", b"\n"
        with explained(self.file), open_bytes(self.plain) as stream:
            for _ in range(shape.skip):
                stream.readline()
            while piece and len(rest) < LONGEST_FIELD:
                piece = stream.read(_PIECE_BYTES)
                if b"\0" in piece:
                    return False
                text = rest + (piece or b"\n")
                if b'"' in text:
                    # Nothing but its quotes is left of a quoted text, which stands between marks.
                    text = _QUOTED.sub(b"\0", text)
                quote = text.find(b'"')
                end = text.rfind(b"\n", 0, len(text) if quote < 0 else quote) + 1
                text, rest = text[:end], text[end:]
                if b"\0" in text and odd.search(text):
                    return False
                separators += text.count(shape.separator.encode())
        return not rest and separators == rows * (len(shape.names) - 1 + shape.trailing)

    def faults(self, *, quotes: bool) -> Iterator[tuple[list[str] | None, "Fault | None"]]:
        """Yield the fields of each record, None of a blank line; and what is wrong with it."""
        place = 0
        blank_is_row = len(self.shape.names) == 1
        for line, fields, raw in self.records():
            if not fields and not blank_is_row:
                yield None, None
                continue
            yield self._checked(place, line, fields, "".join(raw), quotes=quotes)
            place += 1

    def _checked(
        self, place: int, line: int, fields: list[str] | csv.Error, raw: str, *, quotes: bool
    ) -> tuple[list[str], "Fault | None"]:
        shape = self.shape
        if isinstance(fields, csv.Error):
            problem = f"is not CSV: {fields}; a quote inside a text is written twice"
            error = InputError(problem, file=self.file, line=line)
            if "unexpected end" in str(fields) or "limit" in str(fields):
                raise error
            return [], Fault(place, "quotes", error)
        width = len(shape.names)
        if shape.trailing and len(fields) == width + 1 and not fields[-1]:
            fields = fields[:-1]
        fields = fields or [""]
        if len(fields) != width:
            problem = f"has {_count(len(fields))}, expected {width}"
            if raw.startswith("#") and shape.comment is None:
                problem += "; if lines that begin with # are comments: --comment '#'"
            elif len(fields) > width:
                problem += "; a text with a separator in it needs quotes"
            reason = "too many fields" if len(fields) > width else "too few fields"
            return [], Fault(place, reason, InputError(problem, file=self.file, line=line))
        if quotes and shape.by_character and '"' in raw and _inside(shape.separator).search(raw):
            problem = "has a quote inside a text: put the text in quotes, and write it twice"
            return [], Fault(place, "quotes", InputError(problem, file=self.file, line=line))
        return fields, None

    def check_encoding(self) -> None:
        """Raise an InputError at the first line that is not UTF-8, or where the file is damaged."""
        number = 0
        with explained(self.file, lambda: number), open_bytes(self.plain) as stream:
            for line in stream:
                number += 1
                try:
                    line.decode()
                except UnicodeDecodeError as error:
                    raise self._not_utf8(line, number, error) from error

    def _not_utf8(self, line: bytes, number: int, error: UnicodeDecodeError) -> InputError:
        before = line[: error.start].decode(errors="replace")
        names = self.shape.names
        place = before.count(self.shape.separator) if self.shape.by_character else 0
        column = names[min(place, len(names) - 1)] if self.shape.by_character else None
        problem = (
            f"byte 0x{line[error.start]:02x} is not UTF-8 text; if the file is Latin-1, "
            f"write it anew: iconv -f LATIN1 -t UTF-8 {self.file.name} > new.csv"
        )
        return InputError(problem, file=self.file, line=number, column=column)


@dataclass(frozen=True, slots=True)
class Fault:
    """A record that is none of the table's."""

    place: int
    """Place of the record among all of the file, counted from 0."""
    reason: str
    error: InputError


@lru_cache(maxsize=2)
def _lines(text: Text, changed: int) -> NDArray[np.int64]:
    del changed
    single = len(text.shape.names) == 1
    numbers = (line for line, fields, _ in text.records() if fields or single)
    return np.fromiter(numbers, np.int64)


@lru_cache(maxsize=8)
def _inside(separator: str) -> re.Pattern[str]:
    """Return the pattern of a quote that neither begins nor ends a text."""
    mark = re.escape(separator)
    return re.compile(rf'[^{mark}"\r\n]"(?![{mark}"\r\n]|$)')


def _count(fields: int) -> str:
    return f"{fields} field{'' if fields == 1 else 's'}"
