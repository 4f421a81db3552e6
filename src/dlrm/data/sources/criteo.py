"""Source `criteo`: the raw text of the Criteo click logs.

Goes in: one or several files in order (`train.txt`, or `day_0 ... day_23`), plain or gzip, LF or
CRLF. A line is a label (0 or 1), 13 integers I1..I13 and 26 categories C1..C26 in hexadecimal (up
to ffffffff), separated by tabs; an empty field is missing. The form without labels (Kaggle's
test.txt, 39 columns) can be read for prediction.
Comes out: frames of label (UInt8), I1..I13 (Int64) and C1..C26 (UInt32), null where missing; and
such frames as lines again.

Three definitions of a good line agree, from the fastest to the most exact: the kernel takes what is
plainly good, Polars takes all that is good, and `fault` names what is not.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from dlrm.data import kernels
from dlrm.data.features.columns import Columns, log_columns
from dlrm.data.sources.parts import Part, spilled
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.sources.records import Fault
from dlrm.data.sources.source import OnBadRow
from dlrm.data.sources.text import check_file, chunks, estimate_lines, file_fingerprint, first_line
from dlrm.data.threads import ahead, in_order
from dlrm.errors import ConfigError, InputError, UsageError

LABEL = "label"
INTEGERS = tuple(f"I{i}" for i in range(1, 14))
CATEGORIES = tuple(f"C{i}" for i in range(1, 27))

# A good line, up to integers of 19 digits, which `fault` looks at field by field.
_FIELDS = rb"(?:-?[0-9]{1,18})?" + rb"(?:\t(?:-?[0-9]{1,18})?){12}" + rb"(?:\t[0-9a-fA-F]{0,8}){26}"
_GOOD = {True: re.compile(rb"[01]\t" + _FIELDS), False: re.compile(_FIELDS)}
# Python refuses to convert a text of thousands of digits, even if they are zeros.
_INTEGER = re.compile(rb"(-?)0*([0-9]{1,19})")
_CATEGORY = re.compile(rb"[0-9a-fA-F]+")
# What the fast parser would accept or trim and a good line never holds.
_SUSPICIOUS = (b"+", b" ", b"\r", b"\0")


def parse(chunk: bytes, lines: int, *, labelled: bool) -> pl.DataFrame | None:
    """Return the frame of a chunk in which every line is good; None when one is not."""
    if kernels.available():
        columns = kernels.parse_criteo(chunk, lines, labelled=labelled)
        if columns is not None:
            return frame_of(columns)
    return parse_with_polars(chunk, lines, labelled=labelled)


def parse_with_polars(chunk: bytes, lines: int, *, labelled: bool) -> pl.DataFrame | None:
    """Do the same without the kernels, and for numbers that they leave to this."""
    texts = (LABEL,) * labelled
    schema = {
        **dict.fromkeys(texts, pl.String()),
        **dict.fromkeys(INTEGERS, pl.Int64()),
        **dict.fromkeys(CATEGORIES, pl.String()),
    }
    if not lines:
        return pl.DataFrame(schema=schema).select(_typed(labelled))
    # The parser fills short lines up with nulls: the number of tabs tells.
    short = chunk.count(b"\t") != lines * (len(schema) - 1)
    if short or any(mark in chunk for mark in _SUSPICIOUS):
        return None
    try:
        frame = pl.read_csv(chunk, separator="\t", has_header=False, schema=schema, quote_char=None)
        values = pl.col(CATEGORIES)
        # The conversion below takes "-0" for a number.
        odd = (values.str.len_bytes() > 8) | values.str.starts_with("-")
        good = frame.height == lines and not frame.select(pl.any_horizontal(odd.any())).item()
        if labelled:
            good = good and frame[LABEL].is_in(["0", "1"]).fill_null(False).all()
        return frame.select(_typed(labelled)) if good else None
    except pl.exceptions.PolarsError:
        return None


def frame_of(columns: kernels.Columns) -> pl.DataFrame:
    """Return parsed columns as a frame."""
    names, values = (*INTEGERS, *CATEGORIES), (*columns.counts, *columns.categories)
    frame = pl.DataFrame({LABEL: columns.labels, **dict(zip(names, values, strict=True))})
    missing = pl.DataFrame(dict(zip(names, columns.missing, strict=True)))
    return frame.with_columns(pl.when(~missing[name]).then(name).alias(name) for name in names)


def _typed(labelled: bool) -> list[pl.Expr]:
    """Return the columns as the source yields them, from those that the parser read."""
    label = (pl.col("label") == "1") if labelled else pl.lit(0)
    return [
        label.cast(pl.UInt8).alias("label"),
        pl.col(INTEGERS),
        pl.col(CATEGORIES).str.to_integer(base=16).cast(pl.UInt32),
    ]


def fault(line: bytes, labelled: bool) -> tuple[str, str | None, str] | None:
    """Say what is wrong with a line: reason, column, problem; None when it is good."""
    if b"\0" in line:
        return "binary", None, "holds a NUL byte; this is not a text log"
    fields = line.split(b"\t")
    names = (("label",) if labelled else ()) + INTEGERS + CATEGORIES
    if len(fields) != len(names):
        expected = "label, I1..I13, C1..C26" if labelled else "I1..I13, C1..C26"
        problem = f"{len(fields)} columns, expected {len(names)} ({expected}, separated by tabs)"
        return "columns", None, problem
    for name, value in zip(names, fields, strict=True):
        quoted = f'"{value[:40].decode("utf-8", "backslashreplace")}"'
        if name == "label":
            if value not in (b"0", b"1"):
                return "label", name, f"label is {quoted}, expected 0 or 1"
        elif not value:
            continue
        elif name in INTEGERS:
            number = _INTEGER.fullmatch(value)
            if not number or not -(2**63) <= int(number[1] + number[2]) < 2**63:
                problem = f"count is {quoted}, expected a whole number or nothing"
                return "count", name, problem
        elif not _CATEGORY.fullmatch(value) or len(value) > 8:
            problem = f"category is {quoted}, expected up to 8 hexadecimal digits or nothing"
            return "category", name, problem
    return None


# Half a category is looked up, not formatted: several times faster.
_HALVES = pl.Series([f"{half:04x}" for half in range(2**16)])


def write_lines(
    frame: pl.DataFrame,
    stream: BinaryIO,
    *,
    label: str,
    dense: Sequence[str],
    categorical: Sequence[str],
) -> None:
    """Write the rows of a frame; other columns are left out."""
    text = frame.select(pl.col(label), pl.col(dense), *map(as_hexadecimal, categorical))
    text.write_csv(stream, separator="\t", include_header=False, quote_style="never")


def as_hexadecimal(name: str) -> pl.Expr:
    """Return a column of UInt32 as texts of 8 hexadecimal digits, null where missing."""
    halves = pl.lit(_HALVES)
    return pl.concat_str(
        halves.gather(pl.col(name) // 2**16), halves.gather(pl.col(name) % 2**16)
    ).alias(name)


CHUNK_BYTES = 8 << 20

_FIELD = re.compile(rb"-?\d*|[0-9a-fA-F]{8}")


class CriteoSource:
    """Raw Criteo text, as a Source.

    Args:
        paths: The files, in order.
        bad_rows: `error` stops at the first row that is not what it should be; `skip` leaves it
            out.
        labelled: Whether lines begin with a label; None looks at the first line. Without labels
            the label column is 0.
        chunk_bytes: Bytes of text parsed at a time.

    Raises:
        InputError: A file is missing, empty or a folder.

    """

    name = "criteo"
    dense = INTEGERS
    categorical = CATEGORIES
    label = LABEL

    def __init__(
        self,
        paths: Sequence[Path | str] | Path | str,
        *,
        bad_rows: OnBadRow = "error",
        labelled: bool | None = True,
        chunk_bytes: int = CHUNK_BYTES,
    ):
        if isinstance(paths, str | Path):
            paths = [paths]
        if not paths:
            raise UsageError("no raw file is named; expected one or more")
        if bad_rows not in ("error", "skip"):
            raise ConfigError(f'bad_rows is "{bad_rows}", expected error or skip')
        self.paths = tuple(Path(path) for path in paths)
        self.bad_rows: OnBadRow = bad_rows
        self.chunk_bytes = chunk_bytes
        for path in self.paths:
            check_file(path)
        if labelled is None:
            labelled = first_line(self.paths[0]).count(b"\t") != len(INTEGERS) + len(CATEGORIES) - 1
        self.labelled = labelled

    def fingerprint(self) -> dict[str, Any]:
        """Return sizes and hashes of the files (of 64 places in those over 16 MiB)."""
        return {
            "source": "criteo",
            "bad_rows": self.bad_rows,
            "labelled": self.labelled,
            "files": [file_fingerprint(path) for path in self.paths],
        }

    def schema(self) -> Columns:
        """Return what the columns are: the format says so."""
        return log_columns(LABEL, INTEGERS, CATEGORIES, why=f"the format {self.name} says so")

    def rows(self) -> int:
        """Return about how many lines the files hold."""
        return sum(estimate_lines(path) for path in self.paths)

    def read(self) -> Iterator[pl.DataFrame]:
        """Yield the good rows of all files in order; see `parts`."""
        yield from (part.read(part.scan) for part in self.parts() if part.rows)

    def parts(self) -> Iterator[Part]:
        """Yield the rows of all files in order, some megabytes of text at a time, in memory.

        Raises:
            InputError: A row is not what it should be; names file, line and column.

        """
        for path in self.paths:
            line = 1
            texts = ahead(chunks(path, self.chunk_bytes))
            for chunk, parsed in in_order(lambda chunk: (chunk, self._parsed(chunk)), texts):
                frame, faults = parsed, []
                if frame is None:
                    good, faults = self._without_faults(chunk, path, line)
                    frame = self._parsed(good)
                if frame is None:
                    # Not reachable as long as the definitions of a good line agree.
                    raise InputError("cannot be parsed", file=path, line=line)
                yield Part(frame, frame.height, path, line, line_of=_line_of, faults=tuple(faults))
                line += chunk.count(b"\n")

    def table(self, folder: Path, advance: Callable[[int], None]) -> RawTable:
        """Return the rows as parts in a folder; see `Table`."""
        return RawTable(tuple(spilled(self.parts(), folder, advance)))

    def _parsed(self, chunk: bytes) -> pl.DataFrame | None:
        return parse(chunk, chunk.count(b"\n"), labelled=self.labelled)

    def _without_faults(self, chunk: bytes, path: Path, line: int) -> tuple[bytes, list[Fault]]:
        """Return the good lines of a chunk, and the others; raise at the first one, or not."""
        good_lines: list[bytes] = []
        faults: list[Fault] = []
        for place, text in enumerate(chunk[:-1].split(b"\n")):
            good = _GOOD[self.labelled].fullmatch(text)
            if good or (wrong := fault(text, self.labelled)) is None:
                good_lines.append(text + b"\n")
                continue
            reason, column, problem = wrong
            error = InputError(problem, file=path, line=line + place, column=column)
            if self.bad_rows == "error":
                raise error
            faults.append(Fault(place, reason, error))
        return b"".join(good_lines), faults


def _line_of(record: int) -> int:
    return record + 1


def is_criteo(path: Path) -> bool:
    """Whether a file looks like raw Criteo text: some 40 numbers and hexadecimals with tabs."""
    check_file(path)
    with path.open("rb") as stream:
        if stream.read(4) == b"PAR1":
            return False
    fields = first_line(path).split(b"\t")
    good = sum(bool(_FIELD.fullmatch(field)) for field in fields)
    return 30 <= len(fields) <= 50 and good >= 0.8 * len(fields)
