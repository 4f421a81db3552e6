"""The shape of a text with records: what is between fields, the line that names them, the rows.

It is recognised from the first lines. What is out of the ordinary is said in `notes`:

    title lines, `sep=;`     left out, as are blank lines and comments above the header
    a;b;  and  1;2;          the separator at the end of a line ends it
    a,b   and  r1,1,2        the first column has no name: R's row names, or a written index
    1::2::3  and  1  2   3   several characters, or runs of blanks, between fields
"""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dlrm.data.features.number_text import MISSING_TEXTS
from dlrm.data.sources.reading import SPACES, Reading, Shape
from dlrm.data.sources.records import records
from dlrm.errors import InputError

SEPARATORS = (",", "\t", ";", "|", "\x01", "^", "~", "::", SPACES)
"""What is tried, in this order; the last only where no other fits."""
_UNUSUAL = SEPARATORS[5:]
_DATA = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?$")
_SEP_LINE = re.compile(r'"?sep=(.|\\t)"?$', re.IGNORECASE)
_COMMENT = "#"
_OPEN_QUOTES = 3
"""Records that are no CSV behind which others are looked at."""
_RECORDS = 200
"""Records that are looked at."""
_TITLES = 50
"""Lines above a header, at most."""
_FITS = 0.9
"""Share of the records that have the width of the table, in one that is sure to be one."""


class _Record(NamedTuple):
    first: int
    """The line on which it begins, counted from 1."""
    last: int
    fields: list[str]

    @property
    def names(self) -> list[str]:
        return [name.strip() for name in self.fields]


def recognise(
    head: str, file: Path, reading: Reading, columns: Sequence[str] = (), *, tabs: bool = False
) -> Shape:
    """Return the shape of a text."""
    lines = head.split("\n")
    notes: list[str] = []
    start = _above(lines, reading, columns, notes)
    separators = (reading.separator,) if reading.separator else ("\t",) if tabs else SEPARATORS
    if reading.separator is None and (sep_line := _SEP_LINE.match(lines[0].strip())):
        separators = (sep_line[1].replace("\\t", "\t"),)
    parsed = {name: _first_records(lines, name, start, reading.comment) for name in separators}
    separator = max(separators, key=lambda name: _fit(parsed[name], name, columns))
    if not parsed[separator]:
        problem = "is blank, expected the names of the columns or the first row"
        raise InputError(problem, file=file, line=1 if start >= len(lines) - 1 else start + 1)
    if separator in _UNUSUAL and reading.separator is None:
        between = "runs of blanks" if separator == SPACES else f'"{separator}"'
        notes.append(f"{between} between fields")
    return _shape(parsed[separator], file, separator, reading, columns, notes)


def _first_records(
    lines: Sequence[str], separator: str, skip: int, comment: str | None
) -> list[_Record]:
    """Return the first records of some lines, but for blank ones."""
    known: list[_Record] = []
    for _ in range(_OPEN_QUOTES):
        for count, record in enumerate(records(lines, separator, skip, comment)):
            if count == _RECORDS:
                return known
            first, fields, raw = record
            if isinstance(fields, csv.Error):
                # A title with a quote, perhaps; a row is found and named when all of it is read.
                known.append(_Record(first, first, [lines[first - 1]]))
                skip = first
                break
            if any(fields):
                known.append(_Record(first, first + len(raw) - 1, fields))
        else:
            break
    return known


def _above(lines: list[str], reading: Reading, columns: Sequence[str], notes: list[str]) -> int:
    """Return how many lines above the records are none by themselves."""
    if reading.skip_lines is not None:
        return reading.skip_lines
    start, comments = 0, 0
    for line in lines:
        text = line.strip()
        if _SEP_LINE.match(text) and start == 0:
            notes.append(f'the line "{text}" says what is between fields')
            return 1
        if text.startswith(_COMMENT) and reading.comment is None:
            # Some write the header as a comment.
            if any(name in re.split(r'[#",;|:\s]+', text) for name in columns):
                break
            comments += 1
        elif text:
            break
        start += 1
    if comments:
        notes.append(f'{_count(comments, "comment line")} above the header left out ("#")')
    return start


def _fit(records: list[_Record], separator: str, columns: Sequence[str]) -> tuple[float, ...]:
    """Return how well a separator fits, to be compared."""
    if not records:
        return (-1,)
    named = max(_known(record, columns) for record in records[:_TITLES])
    width, share = _width(records)
    first = len(records[0].fields)
    if separator == SPACES:
        # Texts have blanks in them, too; a table of blanks has as many in each line.
        sure = width > 1 and share >= _FITS and (width - first == 0 or width - first == 1 < first)
        return named, sure, first == width, 0
    # A few records may be wrong, and a wider one would not make up for it.
    return named, width > 1 and (share >= _FITS or share), first == width, width


def _width(records: list[_Record]) -> tuple[int, float]:
    """Return how many fields most records have, and the share of those that do."""
    widths = Counter(len(record.fields) for record in records)
    width = max(widths, key=lambda width: (widths[width], width))
    return width, widths[width] / len(records)


def _known(record: _Record, columns: Sequence[str]) -> int:
    """Return how many of some columns a record names, if it can be a header."""
    names = _without_mark(record.names, columns)
    return 0 if _repeats(record) else sum(name in names for name in columns)


def _shape(
    records: list[_Record],
    file: Path,
    separator: str,
    reading: Reading,
    columns: Sequence[str],
    notes: list[str],
) -> Shape:
    width, _ = _width(records)
    at, header = _first(records, width, reading, columns)
    first, below = records[at], records[at + 1 :]
    if reading.skip_lines is None and at:
        quoted = f': "{_shortened(records[0].fields[0])}"' if at == 1 else ""
        notes.append(f"{_count(at, 'line')} above the header left out{quoted}")
    names = _without_mark(first.names, columns)
    rows = [record.fields for record in (below if header else [first, *below])]
    full = [fields for fields in rows if len(fields) == width]
    trailing = width > 1 and bool(full) and all(fields[-1] == "" for fields in full)
    trailing &= not header or len(names) < width or names[-1] == ""
    if trailing:
        width -= 1
        notes.append("a separator ends each line")
    if header and len(names) > 1 and len(names) > width and names[-1] == "":
        names = names[:-1]
    if not header:
        names = [f"c{number}" for number in range(width)]
    elif len(names) == width - 1 and full:
        notes.append('the first column has no name in the header: "column 1"')
        names = ["", *names]
    # A written index has no name.
    names = [name or f"column {number}" for number, name in enumerate(names, start=1)]
    if twice := [name for name in names if names.count(name) > 1]:
        problem = "the header names this column twice"
        raise InputError(problem, file=file, line=first.first, column=twice[0])
    skip = first.last if header else first.first - 1
    if header and names[0] == "column 1" and below and len(below[0].fields) > 2:
        # pandas writes the name of an index below those of the columns, where they have levels.
        index, *others = below[0].names
        if index and not any(others):
            skip, names[0] = below[0].last, index
    return Shape(
        separator=separator,
        names=tuple(names),
        skip=skip,
        comment=reading.comment,
        trailing=trailing,
        notes=tuple(notes),
    )


def _first(
    records: list[_Record], width: int, reading: Reading, columns: Sequence[str]
) -> tuple[int, bool]:
    """Return which record is the header, or else the first row; and whether it is a header.

    Lines above it are titles: they have fewer fields than the table is wide.
    """
    given = {"yes": True, "no": False}.get(reading.header)
    if reading.skip_lines is not None:
        if given is None:
            given = bool(_known(records[0], columns)) or _is_header(records, 0)
        return 0, given
    wide = (at for at, record in enumerate(records[:_TITLES]) if not _is_title(record, width))
    at = next(wide, 0)
    named = max(range(at + 1), key=lambda place: _known(records[place], columns))
    if _known(records[named], columns):
        return named, given is not False
    # R leaves out the name of the first column: the line above the first full one is no title.
    if at and len(records[at - 1].fields) == width - 1 and not _is_header(records, at):
        short = records[at - 1].names
        if given or (width > 2 and all(short) and not any(map(_DATA.match, short))):
            return at - 1, given is not False
    header = _is_header(records, at) if given is None else given
    if columns and given is None and (not header or _repeats(records[at])):
        # A title as wide as the table, or a level of names, stands above the names that are known.
        for place, record in enumerate(records[:_TITLES]):
            names = record.names
            if _known(record, columns) == len(columns) and not any(map(_DATA.match, names)):
                return place, True
    titles = records[:at]
    if not header and any(
        len(title.fields) > 1 or _DATA.match(title.fields[0]) or title.fields[0].startswith('"')
        for title in titles
    ):
        # Without a header, whatever has a value is a row.
        return 0, False
    return at, header


def _repeats(record: _Record) -> bool:
    names = [name for name in record.names if name]
    return len(set(names)) < len(names)


def _is_title(record: _Record, width: int) -> bool:
    """Whether a record has fewer fields than the table, or one text and blanks, as Excel writes."""
    names = record.names
    alone = width > 2 and not any(names[1:]) and not _DATA.match(names[0])
    return len(names) < width or alone


def _without_mark(names: list[str], columns: Sequence[str]) -> list[str]:
    """Return names without the mark of a comment, where a header is written as one."""
    bare = names[0].lstrip(_COMMENT).strip()
    return [bare, *names[1:]] if bare in columns and names[0] not in columns else names


def _is_header(records: list[_Record], at: int) -> bool:
    """Whether a record names the columns: names are texts, at least above some numbers."""
    names = records[at].names
    if len(names) > 1 and names[-1] == "":
        # A separator may end the line.
        names = names[:-1]
    if not any(map(_DATA.match, names)):
        # Only an index may lack its name; a row of values may lack any.
        return all(names[1:])
    if len(names) > 2 and names == [str(number) for number in range(len(names))]:
        return True
    below = records[at + 1].names if records[at + 1 :] else []
    return any(
        name.lower() not in MISSING_TEXTS and not _DATA.match(name) and _DATA.match(value)
        for name, value in zip(names, below, strict=False)
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
