"""Whole numbers that number the rows: an index that was written into the table."""

import re

import polars as pl

FEW = 20
"""Integers with at most so many distinct values are a category."""
_SURE = 50
"""Of so many different numbers, hardly any others lie as close together by chance."""
_UNNAMED = re.compile(
    r"(|column \d+|Unnamed: \d+(\.\d+|_level_\d+)?|__index_level_\d+__|level_\d+|\.\.\.\d+)$"
)
"""What programs call an index that has no name."""
_INDEX = re.compile(r"(index|idx|row|row[_ ]?(nr|no|num|number|id|index|names?))$", re.IGNORECASE)


def numbers_rows(name: str, known: pl.Series) -> str:
    """Say why whole numbers number the rows; empty where they do not.

    Args:
        name: Of the column.
        known: Its numbers, without missing ones.

    """
    distinct, rows = known.n_unique(), len(known)
    if distinct <= FEW:
        return ""
    if _UNNAMED.match(name):
        return f'numbers the rows: "{name}" is what an index without a name is called'
    if _INDEX.match(name) and distinct > 0.5 * rows:
        return f'numbers the rows: most have their own, and its name is "{name}"'
    return _counts(known) if distinct == rows else ""


def _counts(known: pl.Series) -> str:
    """Say why numbers, each of which is there once, count; empty where they do not."""
    ordered = known.sort()
    steps = ordered.diff().drop_nulls()
    if bool((steps == steps[0]).all()):
        in_order = known.is_sorted() or known.is_sorted(descending=True)
        return "numbers the rows" if in_order else "numbers the rows, in another order"
    close = len(known) >= _SURE and ordered[-1] - ordered[0] < 4 * len(known)
    return "numbers the rows, of which some are not here" if close else ""
