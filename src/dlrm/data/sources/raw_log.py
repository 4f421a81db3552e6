"""Raw Criteo text out: frames of a source as the lines that `CriteoSource` reads back.

A line is the label, the counts, and the categories as 8 hexadecimal digits, separated by tabs; a
missing value is an empty field.
"""

from collections.abc import Sequence
from typing import BinaryIO

import polars as pl

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
    """Write the rows of a frame; other columns are left out.

    Args:
        frame: Integers, those of `categorical` UInt32, null where missing.
        stream: Where to.
        label: Name of the label column.
        dense: Names of the count columns, in order.
        categorical: Names of the category columns, in order.

    """
    text = frame.select(pl.col(label), pl.col(dense), *map(as_hexadecimal, categorical))
    text.write_csv(stream, separator="\t", include_header=False, quote_style="never")


def as_hexadecimal(name: str) -> pl.Expr:
    """Return a column of UInt32 as texts of 8 hexadecimal digits, null where missing."""
    halves = pl.lit(_HALVES)
    return pl.concat_str(
        halves.gather(pl.col(name) // 2**16), halves.gather(pl.col(name) % 2**16)
    ).alias(name)
