"""Columns of numbers and times: amounts, codes, and what numbers the rows."""

import re
from dataclasses import replace

import polars as pl

from dlrm.data.features.column import MOST_BINS, Column, Scale, Values
from dlrm.data.features.texts import as_texts, is_text
from dlrm.data.features.time_text import read_numeric_times, recognise_number

MIN_COUNT = 2
"""Values seen once teach the row that unseen values will share."""
EXACT = 2.0**53
"""Whole numbers above it are not told apart by float64."""
HEAVY = 20.0
"""A number whose largest value is so many times its 90th percentile is scaled by logarithm."""
ENOUGH = 3000
"""Numbers of a column from which on it is piecewise. Fewer are too few for many bins: of smooth
functions of a thousand rows a model learns more from one number than from 64."""
MOST_COMPONENTS, FEWEST_BINS = 2048, 4
"""Piecewise columns that would become more numbers than these have fewer bins each."""
_SENTINELS = (-1.0, -9.0, -99.0, -999.0, -9999.0)
"""What stands for missing among codes."""
_LEADING_ZERO = r"^-?0\d"
_LEAST_ZEROS = 0.001
_ID_NAME = re.compile(
    r"(^|[_\W])(id|ids|code|codes|zip|zipcode|postcode|uid|sku|hash|key|type|class|category|group)"
    r"($|[_\W\d])|(?<=[a-z])(Id|ID|Code)$|(?i:^(user|item|movie|product|resource)$)"
)


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


def number_column(
    name: str,
    numbers: pl.Series,
    raw: pl.Series,
    text_format: str = "",
    doubt: str = "",
    *,
    time: bool = False,
) -> Column:
    """Return what numbers become, or times in seconds."""
    known = numbers.drop_nulls()
    distinct = known.n_unique()
    ignored = ""
    if known.is_empty():
        ignored = f"every value is missing{_tokens(numbers, raw)}"
    elif distinct == 1 and not numbers.null_count() and not _beyond(known, raw):
        ignored = "always the same time" if time else f"always {known[0]:g}"
    elif not time and (known == known.round()).all():
        if not text_format and (form := recognise_number(name, known)):
            return number_column(name, read_numeric_times(numbers, form), raw, form, time=True)
        why = _digit_codes(known, raw)
        ignored = "" if why else numbers_rows(name, known)
        if why := why or (not ignored and _codes(name, known)):
            return category_column(name, as_texts(raw), why)
    if ignored:
        return Column(name=name, kind="ignore", why=ignored)
    scale, tail, flag = scale_of(numbers)
    if time:
        scale = "standard" if scale == "log" else scale
        reasons = ["a time", text_format]
    else:
        written = f'written as "{text_format}"' if text_format else ""
        reasons = [f"{distinct:,} different numbers", tail, written]
    why = ", ".join(filter(None, reasons))
    if missing := numbers.null_count():
        why += f"; missing in {missing / len(numbers):.1%}{_tokens(numbers, raw)}"
    return Column(
        name=name,
        kind="number",
        scale=scale,
        time=time,
        calendar=time,
        format=text_format,
        missing_flag=flag,
        why="; ".join(filter(None, (why, doubt))),
    )


def _beyond(known: pl.Series, raw: pl.Series) -> bool:
    """Whether values differ that are one number, as long ids do."""
    return abs(float(known[0])) > EXACT and as_texts(raw).n_unique() > 1


def within_components(columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Return the columns, where many piecewise ones have fewer bins than a few would."""
    piecewise = [column for column in columns if column.scale == "piecewise"]
    bins = max(FEWEST_BINS, MOST_COMPONENTS // max(len(piecewise), 1))
    if bins >= MOST_BINS:
        return columns
    return tuple(
        replace(column, bins=bins) if column.scale == "piecewise" else column for column in columns
    )


def _tokens(numbers: pl.Series, raw: pl.Series) -> str:
    if not is_text(raw):
        return ""
    texts = raw.cast(pl.String).filter(numbers.is_null()).str.strip_chars()
    distinct = texts.set(texts == "", None).drop_nulls().unique().sort()
    shown = [f'"{token}"' for token in distinct.head(3)]
    return f", as {', '.join(shown)}{', ...' if len(distinct) > 3 else ''}" if shown else ""


def _digit_codes(known: pl.Series, raw: pl.Series) -> str:
    """Say why whole numbers are codes by their digits; empty where they need not be."""
    if is_text(raw):
        texts = raw.cast(pl.String).str.strip_chars()
        zeros = texts.str.contains(_LEADING_ZERO).sum() / len(known)
        digits = texts.str.contains(r"^[-+]?\d+$").sum()
        if zeros >= _LEAST_ZEROS and digits == len(known):
            return "digits with leading zeros, as codes have"
        exponents = texts.str.contains(r"^\d+[eE]\d+$")
        if 0 < exponents.sum() < len(known) and texts.str.len_chars().drop_nulls().n_unique() == 1:
            return "digits with an e in some, all of one length, as hexadecimal ids have"
    low, high = float(known.min()), float(known.max())  # pyright: ignore[reportArgumentType]
    if not raw.dtype.is_float() and low >= 0 and high > EXACT:
        return "whole numbers with more digits than amounts have"
    return ""


def _codes(name: str, known: pl.Series) -> str | None:
    """Say why whole numbers look like codes; None when they look like numbers.

    Amounts and counts lie densely near their smaller values or are round; codes repeat, are large,
    and lie anywhere.
    """
    distinct = known.n_unique()
    if distinct <= FEW:
        return f"{distinct} different whole numbers"
    if _ID_NAME.search(name):
        return "whole numbers, and the name says code or id"
    below = known.filter(known < 0).unique()
    if len(below) == 1 and below[0] in _SENTINELS:
        known, distinct = known.filter(known >= 0), distinct - 1
    low, high = float(known.min()), float(known.max())  # pyright: ignore[reportArgumentType]
    middle = float(known.median())  # pyright: ignore[reportArgumentType]
    if low < 0 or high < 1000 or len(known) < 2 * distinct:
        return None
    values = known.unique()
    lower = int((values <= middle).sum()) / (middle - low + 1)
    filled = max(distinct / (high - low + 1), lower)
    round_share = float((values % 10 == 0).mean())  # pyright: ignore[reportArgumentType]
    if middle > high / 100 and filled < 0.3 and round_share < 0.3:
        return f"{distinct:,} large whole numbers that repeat and lie anywhere, as codes do"
    return None


def scale_of(numbers: pl.Series) -> tuple[Scale, str, bool]:
    """Return how numbers are scaled and why, and whether a flag says where they are missing.

    Piecewise numbers say it themselves; two values have no more to say than one number can.
    """
    known = numbers.drop_nulls()
    if known.len() >= ENOUGH and known.n_unique() > 2:
        return "piecewise", "", False
    missing = numbers.null_count() > 0
    size = known.abs()
    high, most = float(size.max() or 0.0), float(size.quantile(0.9) or 0.0)  # pyright: ignore[reportArgumentType]
    heavy = high > HEAVY * max(most, 1e-12) or (float(known.skew() or 0.0) > 2 and known.min() >= 0)  # pyright: ignore[reportOperatorIssue]
    return ("log", "a long tail", missing) if heavy else ("standard", "no long tail", missing)


FEW = 20
"""Integers with at most so many distinct values are a category."""
_SURE = 50
"""Different numbers of which hardly any others lie as close together by chance."""
_UNNAMED = re.compile(
    r"(|column \d+|Unnamed: \d+(\.\d+|_level_\d+)?|__index_level_\d+__|level_\d+|\.\.\.\d+)$"
)
"""What programs call an index that has no name."""
_INDEX = re.compile(r"(index|idx|row|row[_ ]?(nr|no|num|number|id|index|names?))$", re.IGNORECASE)


def numbers_rows(name: str, known: pl.Series) -> str:
    """Say why whole numbers number the rows; empty where they do not."""
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
