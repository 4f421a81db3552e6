"""Lines of raw Criteo text -> frames, what is wrong with a line, and frames -> lines.

Three definitions of a good line agree, from the fastest to the most exact: the kernel takes what is
plainly good, Polars takes all that is good, and `fault` names what is not.
"""

import re
from collections.abc import Sequence
from typing import BinaryIO

import polars as pl

from dlrm.data import kernels

LABEL = "label"
INTEGERS = tuple(f"I{i}" for i in range(1, 14))
CATEGORIES = tuple(f"C{i}" for i in range(1, 27))

# A good line, up to integers of 19 digits, which `fault` then looks at.
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


def is_good(line: bytes, *, labelled: bool) -> bool:
    """Whether a line is plainly good: `fault` need not look at it."""
    return _GOOD[labelled].fullmatch(line) is not None


def fault(line: bytes, labelled: bool) -> tuple[str, str | None, str] | None:
    """Say what is wrong with a line: reason, column, problem; None when it is good after all."""
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
