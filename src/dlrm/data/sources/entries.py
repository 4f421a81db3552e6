"""The entries of libsvm lines: `label index:value ...`, or `label field:index:value ...`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.sources.text import chunks
from dlrm.errors import InputError

_CHUNK_BYTES = 8 << 20
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_LINE = re.compile(rf"\s*(?:{_NUMBER}(?=\s|$))?(?:\s*(?:\d+:)?\d+:{_NUMBER}(?=\s|$))*\s*(?:#.*)?$")
_LOOKED_AT = 20
_ODD_BLANKS = ("\t", "  ", " \n", "\n ", "\r", "\v", "\f")


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
        lines = _entries(chunk, number, file)
        yield lines
        number += len(lines.lengths)


def _entries(chunk: bytes, number: int, file: Path) -> Entries:
    """Return the entries of some lines, the first of which has this number."""
    try:
        text = chunk.decode()
    except UnicodeDecodeError as error:
        line = number + chunk[: error.start].count(b"\n")
        raise InputError("is not UTF-8 text", file=file, line=line) from error
    lines = pl.Series("label", text.removesuffix("\n").split("\n"))
    if "#" in text:
        lines = lines.str.replace(r"\s*#.*$", "")
    if text.startswith(" ") or any(odd in text for odd in _ODD_BLANKS):
        lines = lines.str.strip_chars().str.replace_all(r"\s+", " ")
    words = lines.str.split(" ")
    counts = words.list.len().to_numpy().astype(np.int64)
    words = words.explode()
    rows, first = np.repeat(np.arange(len(counts)), counts), np.zeros(len(words), np.bool_)
    first[np.cumsum(counts) - counts] = True
    parts = words.str.split_exact(":", 3).struct.unnest().get_columns()

    def check(good: NDArray[np.bool_], expected: str) -> None:
        if not good.all():
            at = int(np.argmin(good))
            problem = f'"{words[at]}" is not {expected}'
            raise InputError(problem, file=file, line=number + int(rows[at]))

    alone = parts[1].is_null().to_numpy()
    check(first | ~alone, "index:value")
    labels = words.filter(pl.Series(first))
    labels = labels.set(pl.Series(~alone[first]) | (labels == ""), None)
    chosen = pl.Series(~alone)
    first_part, second_part, third_part, fourth_part = (part.filter(chosen) for part in parts)
    fielded = third_part.is_not_null()
    index, value, field = (
        first_part,
        second_part,
        pl.repeat(-1, len(first_part), dtype=pl.Int64, eager=True),
    )
    if fielded.any():
        index, value = (
            second_part.zip_with(fielded, first_part),
            third_part.zip_with(fielded, second_part),
        )
        field = first_part.cast(pl.Int64, strict=False).zip_with(fielded, field)
    index = index.cast(pl.Int64, strict=False)
    value = value.cast(pl.Float64, strict=False)
    right = (index >= 0) & value.is_finite() & ((field >= 0) | ~fielded) & fourth_part.is_null()
    good = np.ones(len(words), np.bool_)
    good[~alone] = right.fill_null(value=False).to_numpy()
    check(good, "index:value or field:index:value")
    lengths = counts - np.bincount(rows[alone], minlength=len(counts))
    return Entries(number, labels, lengths, field.to_numpy(), index.to_numpy(), value.to_numpy())
