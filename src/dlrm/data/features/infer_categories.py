"""Columns that are taken for categories or lists of them, or for nothing."""

import polars as pl

from dlrm.data.features.column import Column, Values
from dlrm.data.features.row_index import FEW
from dlrm.data.features.texts import as_texts

MIN_COUNT = 2
"""Values seen once teach the row that unseen values will share."""
_SEPARATORS = ("|", ";", ",", " ")


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
    for separator in _SEPARATORS:
        split = distinct.str.split(separator)
        many = float((split.list.len() > 1).mean())  # pyright: ignore[reportArgumentType]
        if many < 0.3:
            continue
        tokens = split.explode().str.strip_chars()
        # The parts of a list come again in other lists.
        if tokens.n_unique() < 0.5 * len(distinct) and bool((tokens != "").all()):
            return separator
    return None


def _have_fractions(items: pl.Series) -> bool:
    """Whether texts are numbers, and some of them have fractions."""
    if items.dtype != pl.String:
        return False
    numbers = items.drop_nulls().cast(pl.Float64, strict=False)
    return not numbers.null_count() and bool((numbers != numbers.round()).any())
