"""The entries of libsvm lines: `label index:value ...`, or `label field:index:value ...`.

Most files are plain, with one space between entries: numpy finds where each number begins, and all
numbers of a chunk are read at once. Other chunks (comments, tabs, an error) are read word by word.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.sources.text import chunks
from dlrm.errors import InputError

_CHUNK_BYTES = 8 << 20
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LINE = re.compile(rf"\s*(?:{_NUMBER}(?=\s|$))?(?:\s*(?:\d+:)?\d+:{_NUMBER}(?=\s|$))*\s*(?:#.*)?$")
_NO_INDEX = re.compile(rb"[-+.eE][0-9]*:")
_LOOKED_AT = 20
_PLAIN = b"0123456789.+-eE: \n"
_NEWLINE, _SPACE, _COLON = b"\n :"
_ONE_A_LINE = bytes.maketrans(b" :", b"\n\n")
_EXACT = 2.0**53


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of n lines, L in all, one after another."""

    first: int
    """The number of the first line."""
    labels: pl.Series
    """(n,) texts; null where there is none"""
    lengths: NDArray[np.int64]
    """(n,) entries of each line"""
    field: NDArray[np.int64]
    """(L,) -1 where there is none"""
    index: NDArray[np.int64]
    """(L,)"""
    value: NDArray[np.float64]
    """(L,)"""

    @property
    def rows(self) -> NDArray[np.int64]:
        """The line of each entry, counted from 0 (L,)."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


def is_libsvm(lines: list[str]) -> bool:
    """Whether a file's first lines are of this format."""
    shown = [line for line in lines[:_LOOKED_AT] if len(line) < 1 << 16] or lines[:1]
    if not any(":" in line for line in shown):
        return False
    return all("," not in line and _LINE.match(line) for line in shown)


def entries(file: Path) -> Iterator[Entries]:
    """Yield the lines of a file, some megabytes at a time.

    Raises:
        InputError: A line is not of this format; names it.

    """
    number = 1
    for chunk in chunks(file, _CHUNK_BYTES):
        lines = _plain(chunk, number) or _careful(chunk, number, file)
        yield lines
        number += len(lines.lengths)


def _plain(chunk: bytes, number: int) -> Entries | None:
    """Return the entries of a chunk; None if anything in it is out of the ordinary."""
    if b" \n" in chunk:
        chunk = chunk.replace(b" \n", b"\n")
    letters = np.frombuffer(chunk, np.uint8)
    # A token is what stands before a separator.
    ends = np.flatnonzero((letters <= _SPACE) | (letters == _COLON))
    if chunk.translate(None, _PLAIN) or ends[0] == 0 or (np.diff(ends) == 1).any():
        return None
    separators = letters[ends]
    colon, last = separators == _COLON, separators == _NEWLINE
    first, after = (np.concatenate([[x], y[:-1]]) for x, y in ((True, last), (False, colon)))
    of_field = after & colon
    # A label comes first, and no token has more than two colons before it.
    if (~(after | colon | first)).any() or (of_field[1:] & of_field[:-1]).any():
        return None
    line_ends = np.flatnonzero(last)
    labels = _labels(chunk, ends, line_ends, ~colon[first])
    counted = np.cumsum(after & ~colon)
    lengths = np.diff(counted[line_ends], prepend=0)
    if (index := _indices(chunk, labels, lengths)) is not None:
        ones, none = np.ones(len(index)), np.full(len(index), -1)
        return Entries(number, labels, lengths, none, index, ones)
    tokens = None if _NO_INDEX.search(chunk) else _tokens(chunk, pl.Float64())
    if tokens is None:
        return None
    whole = tokens[colon]
    if ((whole < 0) | (whole > _EXACT) | (whole != np.floor(whole))).any():
        return None
    values = np.flatnonzero(after & ~colon)
    fielded = of_field[values - 1]
    field = np.full(len(values), -1, np.int64)
    field[fielded] = tokens[values[fielded] - 2]
    index = tokens[values - 1].astype(np.int64)
    return Entries(number, labels, lengths, field, index, tokens[values])


def _indices(
    chunk: bytes, labels: pl.Series, lengths: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Return the indices of lines `label index:1 ...`; None if a line is not of that kind."""
    bare = chunk.replace(b":1 ", b" ").replace(b":1\n", b"\n")
    ones = (len(chunk) - len(bare)) // 2
    if labels.null_count() or b":" in bare:
        return None
    tokens = _tokens(bare, pl.Int64())
    if tokens is None or len(tokens) != len(labels) + ones:
        return None
    places = np.cumsum(np.concatenate([[0], lengths[:-1] + 1]))
    index = np.delete(tokens, places)
    return None if (index < 0).any() else index


def _tokens(chunk: bytes, dtype: pl.DataType) -> NDArray[Any] | None:
    """Return all numbers of a chunk; None if one of them is none."""
    text = BytesIO(chunk.translate(_ONE_A_LINE))
    try:
        schema = pl.Schema({"token": dtype})
        tokens = pl.read_csv(text, has_header=False, schema=schema)["token"]
    except pl.exceptions.PolarsError:
        return None
    return tokens.to_numpy() if tokens.is_finite().all() and not tokens.null_count() else None


def _labels(
    chunk: bytes,
    ends: NDArray[np.int64],
    line_ends: NDArray[np.int64],
    there: NDArray[np.bool_],
) -> pl.Series:
    """Return the texts of the labels, null where there is none."""
    begins = np.concatenate([[0], ends[line_ends[:-1]] + 1])
    stops = ends[np.concatenate([[0], line_ends[:-1] + 1])]
    if there.all() and (stops - begins == 1).all():
        codes = np.frombuffer(chunk, np.uint8)[begins] - np.uint8(ord("0"))
        if (codes <= 9).all():
            return pl.Series("label", codes).cast(pl.String)
    places = zip(begins.tolist(), stops.tolist(), there.tolist(), strict=True)
    text = chunk.decode("ascii")
    texts = [text[begin:stop] if has else None for begin, stop, has in places]
    return pl.Series("label", texts, pl.String)


def _careful(chunk: bytes, number: int, file: Path) -> Entries:
    """Return the entries of a chunk, word by word; raises at a line that is not of the format."""
    try:
        text = chunk.decode()
    except UnicodeDecodeError as error:
        line = number + chunk[: error.start].count(b"\n")
        raise InputError("is not UTF-8 text", file=file, line=line) from error
    lines = pl.Series("line", text.removesuffix("\n").split("\n"))
    lines = lines.str.replace(r"\s*#.*$", "").str.strip_chars()
    words = lines.str.replace_all(r"\s+", " ").str.split(" ")
    frame = pl.DataFrame({"words": words}).with_row_index("row").explode("words")
    frame = frame.with_columns(pl.col("words").str.split(":").alias("parts")).with_columns(
        pl.col("parts").list.len().alias("size"),
        pl.int_range(pl.len()).over("row").alias("place"),
    )
    labels = frame.filter(pl.col("size") == 1)
    if len(wrong := labels.filter(pl.col("place") > 0)):
        problem = f'"{wrong["words"][0]}" is not index:value'
        raise InputError(problem, file=file, line=number + wrong["row"][0])
    pairs = frame.filter(pl.col("size") > 1).with_columns(
        pl.when(pl.col("size") == 3)
        .then(pl.col("parts").list.get(0, null_on_oob=True).cast(pl.Int64, strict=False))
        .otherwise(-1)
        .alias("field"),
        pl.col("parts").list.get(-2).cast(pl.Int64, strict=False).alias("index"),
        pl.col("parts").list.get(-1).cast(pl.Float64, strict=False).alias("value"),
    )
    wrong = pairs.filter(
        pl.col("field").is_null()
        | (pl.col("index").is_null() | (pl.col("index") < 0))
        | ((pl.col("size") == 3) & (pl.col("field") < 0))
        | ~pl.col("value").is_finite().fill_null(value=False)
        | (pl.col("size") > 3)
    )
    if len(wrong):
        problem = f'"{wrong["words"][0]}" is not index:value or field:index:value'
        raise InputError(problem, file=file, line=number + wrong["row"][0])
    texts = pl.DataFrame({"row": pl.int_range(len(lines), dtype=pl.UInt32, eager=True)}).join(
        labels.select("row", label="words"), on="row", how="left", maintain_order="left"
    )["label"]
    return Entries(
        number,
        texts.set(texts == "", None),
        np.bincount(pairs["row"].to_numpy(), minlength=len(lines)).astype(np.int64),
        pairs["field"].to_numpy(),
        pairs["index"].to_numpy(),
        pairs["value"].to_numpy(),
    )
