"""The records of a CSV text, read one by one: where each stands, and what is wrong with one.

Polars reads the text, much faster; what it cannot say is the line of a row, once texts in quotes
have newlines in them, or which line it stumbled over.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from dlrm.data.sources.text import is_gzip
from dlrm.errors import InputError

GZIP_ERRORS = (EOFError, gzip.BadGzipFile, zlib.error)


def open_text(path: Path) -> BinaryIO:
    """Open a file, plain or gzip, for reading its text as bytes."""
    return cast(BinaryIO, gzip.open(path, "rb")) if is_gzip(path) else path.open("rb")


def records(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each record begins, counted from 1, and its fields; blank ones too.

    Raises:
        InputError: A text in quotes does not end; names the line where it begins.

    """
    with open_text(path) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
        reader = csv.reader(text, delimiter=separator, strict=True)
        line = 1
        while True:
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                problem = f"is not CSV: {error}; a quote inside a text is written twice"
                raise InputError(problem, file=path, line=line) from error
            yield line, fields
            line = reader.line_num + 1


@lru_cache(maxsize=2)
def lines(path: Path, separator: str) -> NDArray[np.int64]:
    """Return the line on which each record begins, the header too, but no blank ones."""
    return np.array([line for line, fields in records(path, separator) if fields], np.int64)


def blanks(path: Path, separator: str, width: int, *, skip: int) -> list[int]:
    """Return which rows are blank lines, counted from 0 behind the first `skip` records.

    Raises:
        InputError: A line has more fields than columns, or fewer.

    """
    rows = []
    for row, (line, fields) in enumerate(records(path, separator), start=-skip):
        if fields and len(fields) != width:
            problem = f"has {len(fields)} fields, expected {width}"
            if len(fields) > width:
                problem += "; a text with a separator in it needs quotes"
            raise InputError(problem, file=path, line=line)
        if not fields:
            rows.append(row)
    return rows


def check_text(path: Path, separator: str, names: tuple[str, ...]) -> None:
    """Raise an InputError at the first line that is not UTF-8, or where a gzip file is damaged."""
    line = 0
    try:
        with open_text(path) as stream:
            for text in stream:
                line += 1
                text.decode()
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(errors="replace")
        column = names[min(before.count(separator), len(names) - 1)]
        problem = (
            f"byte 0x{error.object[error.start]:02x} is not UTF-8 text; if the file is Latin-1, "
            f"write it anew: iconv -f LATIN1 -t UTF-8 {path.name} > new.csv"
        )
        raise InputError(problem, file=path, line=line, column=column) from error
    except GZIP_ERRORS as error:
        problem = "the gzip file is damaged or truncated here; copy or download it again"
        raise InputError(problem, file=path, line=line) from error


def check_quotes(path: Path, separator: str) -> None:
    """Raise an InputError at the first line with a quote that neither begins nor ends a text."""
    inside = re.compile(rf'[^{re.escape(separator)}"\r\n]"(?![{re.escape(separator)}"\r\n]|$)')
    with open_text(path) as stream:
        for line, raw in enumerate(stream, start=1):
            if inside.search(raw.decode()):
                problem = "has a quote inside a text: put the text in quotes, and write it twice"
                raise InputError(problem, file=path, line=line)
