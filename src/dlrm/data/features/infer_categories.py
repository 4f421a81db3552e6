"""Columns that are taken for categories or lists of them, or for nothing."""

import polars as pl

from dlrm.data.features.column import Column, Values
from dlrm.data.features.row_index import FEW
from dlrm.data.features.texts import as_texts

MIN_COUNT = 2
"""Values seen once teach the row that unseen values will share."""
_SEPARATORS = ("|", ";", "::", ",", "/", " ")
_OF_PATHS = ("::", "/")
"""What stands between the steps of a path, a date or a fraction, too."""
_URL = r"^[./~]|^\w+://|^www\."


def category_column(name: str, texts: pl.Series, what: str) -> Column:
    """Return what texts (null where missing) become, and why: `what` they are."""
    known = texts.drop_nulls()
    distinct = known.n_unique()
    if known.is_empty():
        return Column(name=name, kind="ignore", why="every value is missing")
    if distinct == 1 and not texts.null_count():
        return Column(name=name, kind="ignore", why=f'always "{known[0]}"')
    if distinct > FEW and distinct > 0.9 * len(known):
        why = f"nearly every row has a value of its own ({distinct:,} in {len(known):,})"
        return Column(name=name, kind="ignore", why=why)
    missing = f"; missing in {texts.null_count() / len(texts):.1%}" if texts.null_count() else ""
    why = what if str(distinct) in what.split() else f"{what}, {distinct:,} different"
    return Column(name=name, kind="category", values=Values(min_count=MIN_COUNT), why=why + missing)


def list_column(name: str, items: pl.Series, what: str, separator: str) -> Column:
    """Return what lists become, from all their items, one after another."""
    if items.dtype.is_float() or _have_fractions(items):
        return Column(name=name, kind="ignore", why="lists of numbers with fractions")
    items = as_texts(items)
    distinct = items.drop_nulls().n_unique()
    if distinct == 0:
        return Column(name=name, kind="ignore", why="every value is missing")
    return Column(
        name=name,
        kind="list",
        separator=separator,
        values=Values(min_count=MIN_COUNT),
        why=f"{what}, {distinct:,} different",
    )


def separator_of(known: pl.Series) -> str | None:
    """Return what stands between the values of a list; None when the texts are single values."""
    distinct = known.unique()
    if len(distinct) < 3:
        return None
    texts = distinct.to_list()
    for separator in _SEPARATORS:
        if sum(separator in text for text in texts) < 0.3 * len(texts):
            continue
        split = distinct.str.split(separator)
        several = split.filter(split.list.len() > 1)
        tokens = split.explode().str.strip_chars()
        # The parts of a list come again in other lists.
        if tokens.n_unique() >= 0.5 * len(distinct) or not bool((tokens != "").all()):
            continue
        if separator not in _OF_PATHS or not _are_paths(distinct, several):
            return separator
    return None


def _are_paths(texts: pl.Series, several: pl.Series) -> bool:
    """Whether texts of several parts are paths, addresses, dates or fractions, and no lists.

    The parts of a list come first in one text and later in another; a folder has its depth.
    """
    flat = several.explode().str.strip_chars()
    if flat.str.contains(r"^[\d.,]+$").mean() > 0.5 or texts.str.contains(_URL).any():  # pyright: ignore[reportOptionalOperand, reportOperatorIssue]
        return True
    first = set(several.list.first().str.strip_chars())
    later = set(several.list.slice(1).explode().str.strip_chars())
    return len(first & later) < 0.3 * len(first | later)


def _have_fractions(items: pl.Series) -> bool:
    """Whether texts are numbers, and some of them have fractions."""
    if items.dtype != pl.String:
        return False
    numbers = items.drop_nulls().cast(pl.Float64, strict=False)
    return not numbers.null_count() and bool((numbers != numbers.round()).any())
