"""The rows of a split by the value of a column, and by user."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.bags import Bags, single
from dlrm.data.describe import text
from dlrm.data.encoder import Encoder
from dlrm.data.store import Split
from dlrm.data.tabular.encoder import TableEncoder
from dlrm.errors import ConfigError, unknown

MISSING, RARE = "(missing)", "(rare or new)"


@dataclass(frozen=True, slots=True)
class Segments:
    """The rows of a split in K segments."""

    column: str
    names: tuple[str, ...]
    """K of them, in the order in which they are shown"""
    numbers: NDArray[np.int64]
    """(n,) segment of each row, 0 <= number < K"""


def by_column(
    split: Split, encoder: Encoder | TableEncoder, column: str, most: int = 10
) -> Segments:
    """Return the rows of a split by a column.

    A category has a segment for each of its most frequent values, the most frequent first, and one
    for all others. A number has its quantiles: each begins with the value in place floor(k n /
    `most`) of the sorted rows, and takes all that are equal to it.

    Args:
        split: n rows, encoded by `encoder`.
        encoder: Names the columns and their values.
        column: Name of a column, categorical or dense.
        most: Segments at most, besides the one for all others.

    Raises:
        ConfigError: There is no such column or it holds bags (lists the choices), or `most` is not
            positive.

    """
    if most < 1:
        raise ConfigError(f"segments is {most}, expected 1 or more")
    if column in encoder.dense:
        values = split.dense[:, encoder.dense.index(column)]
        return _quantiles(encoder, values, column, most)
    ids = _ids(split, encoder, column, besides=encoder.dense)
    found, places, counts = np.unique(ids, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    # A single other value has a name of its own.
    kept = len(order) if len(order) == most + 1 else min(most, len(order))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.minimum(np.arange(len(order)), kept)
    names = [_name(encoder, column, int(found[place])) for place in order[:kept]]
    if kept < len(order):
        names.append(f"other ({len(order) - kept:,} values)")
    return Segments(column, tuple(names), rank[places])


def users(split: Split, encoder: Encoder | TableEncoder, column: str) -> NDArray[np.int64]:
    """Return the user of each row (n,): an id of the column, -1 where it is missing, rare or new.

    Raises:
        ConfigError: There is no such categorical column, or it holds bags; lists the choices.

    """
    if column in encoder.dense:
        problem = f'"{column}" holds numbers, but a user is a value of a category'
        raise ConfigError(f"{problem}; choose one of: {', '.join(encoder.categorical)}")
    ids = _ids(split, encoder, column).astype(np.int64)
    vocabulary = encoder.vocabulary(column)
    nobody = vocabulary.frame["value"].is_null().arg_true().to_list()
    return np.where(np.isin(ids, [*nobody, vocabulary.other]), -1, ids)


def _ids(
    split: Split, encoder: Encoder | TableEncoder, column: str, besides: tuple[str, ...] = ()
) -> NDArray[np.int32]:
    """Return the id of each row in a categorical column, (n,); `besides` could be chosen too."""
    if column not in encoder.categorical:
        raise unknown("column", column, (*encoder.categorical, *encoder.dense))
    table = encoder.categorical.index(column)
    if split.offsets is None:
        return split.ids[:, table]
    ids = None
    if not encoder.schema.categorical[table].multi_hot:
        ids = single(Bags(split.ids, split.offsets), len(encoder.categorical), table)
    if ids is None:
        one_each = [each.name for each in encoder.schema.categorical if not each.multi_hot]
        choices = [name for name in (*one_each, *besides) if name != column]
        raise ConfigError(
            f'"{column}" holds bags of ids, so that a row may have several values of it or none; '
            f"choose one of: {', '.join(choices) or '(there is no other column)'}"
        )
    return ids


def _name(encoder: Encoder | TableEncoder, column: str, number: int) -> str:
    vocabulary = encoder.vocabulary(column)
    if number == vocabulary.other:
        return RARE
    value = vocabulary.frame["value"][number]
    # The criteo format writes categories in hexadecimal, whoever made the log.
    as_hex = vocabulary.frame.schema["value"] == pl.UInt32 and not encoder.max_rows_per_table
    return text(value, as_hex=as_hex) or MISSING


def _quantiles(
    encoder: Encoder | TableEncoder, values: NDArray[np.float32], column: str, most: int
) -> Segments:
    ordered = np.sort(values)
    lows = np.unique(ordered[np.arange(most) * len(ordered) // most]) if len(values) else ordered
    starts = np.searchsorted(ordered, lows, side="left")
    highs = ordered[np.append(starts[1:], len(ordered))[: len(lows)] - 1]
    ends = (map(_shown, encoder.raw(column, each)) for each in (lows, highs))
    names = tuple(
        low if low == high else f"{low} to {high}" for low, high in zip(*ends, strict=True)
    )
    return Segments(column, names, np.searchsorted(lows, values, side="right") - 1)


def _shown(raw: float) -> str:
    whole = round(raw)
    return f"{whole:,}" if abs(raw - whole) <= 1e-4 * max(1.0, abs(raw)) else f"{raw:,.4g}"
