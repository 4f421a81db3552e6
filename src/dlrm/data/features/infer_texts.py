"""Columns of texts: numbers and times however they are written, lists, categories, or nothing."""

from collections.abc import Iterator
from dataclasses import replace

import polars as pl

from dlrm.data.features.column import Column, Values
from dlrm.data.features.infer_numbers import (
    FEW,
    MIN_COUNT,
    category_column,
    number_column,
)
from dlrm.data.features.list import LITERALS, are_lists, are_objects, list_items, unquoted
from dlrm.data.features.number_text import doubted_point, is_missing, recognise
from dlrm.data.features.texts import NumberReading, as_numbers, as_texts
from dlrm.data.features.time_text import looks_like_time, recognise_order
from dlrm.data.sources.raw_table import RawTable

_CHANGES = 50
"""Numbers above, and texts below, that make a change of type."""
_MEND = (
    "; mend the file, leave such rows out (--bad-rows skip), say what means missing (--missing "
    'TEXT), or make it a category (--category COLUMN, or kind = "category" in a schema)'
)
_INFINITE = "(?i)^[-+]?(inf|infinity|\N{INFINITY})$"
_IDS_OF_THREE = r"^\d{3}(,\d{3})*$"
"""Lists of three digits that could be numbers with thousands separators."""

Guess = tuple[Column, int, str | None]
"""A column; the first row that is a mistake, and what is wrong with it."""


def text_column(table: RawTable, name: str, *, usual_missing: bool, declared: bool) -> Guess:
    """Return what texts are."""
    raw = table.column(name).alias("").cast(pl.String).str.strip_chars()
    numbers, wrong = table.numbers(name, NumberReading(usual_missing=usual_missing))
    if not wrong.any():
        if declared and len(known := raw.drop_nulls()) and known.str.contains(r"^\d+$").all():
            return category_column(name, table.texts(name), "digits of a column of texts"), 0, None
        return number_column(name, numbers, raw, doubt=doubted_point(raw)), 0, None
    texts = table.texts(name)
    known = texts.drop_nulls()
    if usual_missing:
        known = known.filter(~is_missing(known))
    for text_format, time, doubt in _readings(raw, known):
        reading = NumberReading(text_format, time, usual_missing)
        read = as_numbers(raw, reading) if text_format or time else (numbers, wrong)
        if (guess := _read_as(reading, name, raw, *read, doubt)) is not None:
            return guess
    return _among_numbers(_lists(name, texts, known), raw, numbers, wrong), 0, None


def _readings(raw: pl.Series, known: pl.Series) -> Iterator[tuple[str, bool, str]]:
    """Yield how texts might be read as numbers: format, whether as times, and what is doubted."""
    text_format, doubt = recognise(raw)
    of_three = "," in text_format and known.str.contains(_IDS_OF_THREE).all()
    if text_format and not (of_three and separator_of(known)):
        yield text_format, False, doubt
    yield "", False, ""
    if looks_like_time(known):
        order, doubt = recognise_order(known)
        yield order, True, doubt


def _read_as(
    reading: NumberReading,
    name: str,
    raw: pl.Series,
    numbers: pl.Series,
    wrong: pl.Series,
    doubt: str,
) -> Guess | None:
    """Return texts as numbers or times, some perhaps a mistake; None where they are neither."""
    row, problem = 0, None
    if wrong.any():
        row = int(wrong.arg_true()[0])
        problem = _mistake(raw, numbers, wrong, time=reading.time)
        if problem is None:
            return None
    raw = raw.set(wrong, None)
    column = number_column(name, numbers, raw, reading.format, doubt, time=reading.time)
    return column, row, problem


def _mistake(texts: pl.Series, numbers: pl.Series, wrong: pl.Series, *, time: bool) -> str | None:
    """Say what is wrong with the first text among numbers; None where it is a column of texts."""
    others, digits = int(wrong.sum()), len(numbers) - numbers.null_count()
    text, share = texts[int(wrong.arg_true()[0])], digits / (digits + others)
    problem = None
    # An occasional text among numbers is a mistake; many are a category.
    if time:
        if share >= 0.95:
            problem = "a time, but nearly all values in this column are"
    elif digits and texts.filter(wrong).str.contains(_INFINITE).all():
        problem = "a number that a model can take"
    elif numbers.n_unique() <= FEW:
        problem = None
    elif digits >= 95 and share > 0.95:
        problem = f"a number, but {share:.1%} of the values in this column are "
        problem += f"({others:,} {'is' if others == 1 else 'are'} not)"
    # Numbers up to a row and texts from there on are a change of type, unless the rows are sorted.
    elif (
        min(digits, others) >= _CHANGES
        and numbers.is_not_null().arg_true()[-1] < wrong.arg_true()[0]
        and not texts.is_sorted()
    ):
        problem = f"a number, but all {digits:,} values above it are, and none below"
    return problem and f'"{text}" is not {problem}{_MEND}'


def _among_numbers(column: Column, raw: pl.Series, numbers: pl.Series, wrong: pl.Series) -> Column:
    """Return a column that says which texts make it none of numbers, where half of them are."""
    others = raw.filter(wrong).unique(maintain_order=True)
    digits = len(numbers) - numbers.null_count()
    if digits < len(raw) / 2 or numbers.n_unique() <= FEW:
        return column
    hint = f'all others are numbers: if "{others[0]}" means missing, --missing "{others[0]}"'
    if len(others) > 1:
        hint = f'{digits / len(raw):.1%} are numbers, but not "{others[0]}", for example'
    return replace(column, why=f"{column.why}; {hint}")


def _lists(name: str, texts: pl.Series, known: pl.Series) -> Column:
    if are_lists(known):
        items = unquoted(list_items(known).explode())
        return list_column(name, items, "lists as Python and JSON write them", LITERALS)
    if are_objects(known):
        return category_column(name, texts, "objects with keys, each taken as a whole")
    if looks_like_time(known):
        return category_column(name, texts, "times of several forms, or of none that is known")
    if separator := separator_of(texts.drop_nulls()):
        items = known.str.split(separator).explode()
        return list_column(name, items, f'values with "{separator}" between them', separator)
    return category_column(name, texts, "texts")


_SEPARATORS = ("|", ";", "::", ",", "/", " ")
_OF_PATHS = ("::", "/")
"""What stands between the steps of a path, a date or a fraction, too."""
_URL = r"^[./~]|^\w+://|^www\."


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
