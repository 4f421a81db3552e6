"""What the columns of a table are, guessed from their values; each guess says why.

Numbers whose order means nothing (codes, ids) look like numbers; what tells them apart is written
down here as rules, and the user reads the reason and may say otherwise in the schema.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from dlrm.data.features.column import Column, Scale, Values
from dlrm.data.features.columns import Columns
from dlrm.data.features.duplicate_columns import without_duplicates
from dlrm.data.features.texts import as_numbers, as_texts, is_text
from dlrm.data.sources.raw_table import RawTable
from dlrm.errors import ConfigError
from dlrm.schema import Task

FEW = 20
"""Integers with at most so many distinct values are a category."""
MIN_COUNT = 2
"""Values seen once teach the row that unseen values will share."""
HEAVY = 20.0
"""A number whose largest value is so many times its 90th percentile is scaled by logarithm."""
_TIME = r"^(\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d)"
_DECIMAL_COMMA = r"^[-+]?\d+(,\d+)?$"
_CHANGES = 50
"""Numbers above, and texts below, that make a change of type."""
_MEND = (
    "; mend the file, leave such rows out (--bad-rows skip), or write a schema (dlrm data infer) "
    'that makes it kind = "category"'
)
_SEPARATORS = ("|", ";", ",", " ")
_ID_NAME = re.compile(
    r"(^|[_\W])(id|ids|code|codes|zip|zipcode|postcode|uid|sku|hash|key|type|class|category|group)"
    r"($|[_\W\d])|(?<=[a-z])(Id|ID|Code)$|(?i:^(user|item|movie|product|resource)$)"
)


def infer(
    table: RawTable,
    labels: Sequence[str],
    positive: str | None = None,
    *,
    task: Task = "classification",
    weight: str | None = None,
    strict: bool = True,
) -> Columns:
    """Return the schema of a table.

    Args:
        table: All its rows.
        labels: Columns to predict.
        positive: What a label is for a click; see `Columns`.
        task: What the labels are.
        weight: Column that says how much each row counts.
        strict: Whether a text in a column of numbers is an error; otherwise the reason says it.

    Raises:
        ConfigError: There is no such label, or nothing to learn from.
        InputError: A column is numbers in nearly all rows; names the first other row.

    """
    for label in labels:
        table.check_column(label, "label column")
    if weight is not None:
        table.check_column(weight, "weight column")
    names = [name for name in table.types if name not in (*labels, weight)]
    if not names:
        beside = "" if weight is None else f" and the weight {weight}"
        raise ConfigError(f"the table has no column but the label {', '.join(labels)}{beside}")
    return Columns(
        labels=tuple(labels),
        task=task,
        positive=positive,
        weight=weight,
        columns=without_duplicates(
            table, tuple(_column(table, name, strict=strict) for name in names)
        ),
    )


def _column(table: RawTable, name: str, *, strict: bool) -> Column:
    values = table.column(name)
    dtype = values.dtype
    if dtype.is_nested():
        return _list(name, values.explode(empty_as_null=True), "a list in the file", "|")
    if is_text(values):
        column, row, problem = _text_column(name, values)
        if problem:
            error = table.error(row, name, problem)
            if strict:
                raise error
            column = replace(column, why=f"{column.why}; BUT {error}")
        return column
    if dtype == pl.Boolean:
        return _category(name, as_texts(values), "true or false")
    if not (dtype.is_temporal() or dtype.is_numeric() or dtype == pl.Null):
        return Column(name=name, kind="ignore", why=f"{dtype} is neither text nor number")
    numbers, _ = as_numbers(values)
    if dtype.is_temporal():
        return _time_column(name, numbers)
    return _number_column(name, numbers, as_texts(values))


def _text_column(name: str, values: pl.Series) -> tuple[Column, int, str | None]:
    """Return what texts are; and the row and the problem of the first that is a mistake."""
    texts = as_texts(values)
    known = texts.drop_nulls()
    numbers, wrong = as_numbers(texts)
    if not wrong.any():
        return _number_column(name, numbers, texts), 0, None
    row = int(wrong.arg_true()[0])
    if problem := _mistake(texts, numbers, wrong):
        return _number_column(name, numbers, texts), row, problem
    if known.str.contains(_TIME).all():
        times, untimely = as_numbers(texts, time=True)
        if not untimely.any():
            return _time_column(name, times), 0, None
    if known.str.contains(_DECIMAL_COMMA).all():
        problem = f'"{texts[row]}" has a decimal comma, expected a point, as in 1.5'
        return _category(name, texts, "texts"), row, problem
    if separator := _separator(known):
        tokens = known.str.split(separator).explode()
        return _list(name, tokens, f'values with "{separator}" between them', separator), 0, None
    return _category(name, texts, "texts"), 0, None


def _mistake(texts: pl.Series, numbers: pl.Series, wrong: pl.Series) -> str | None:
    """Say what is wrong with the first text among numbers; None where it is a column of texts."""
    others = int(wrong.sum())
    digits = len(numbers) - numbers.null_count()
    if numbers.n_unique() <= FEW:
        return None
    text = texts[int(wrong.arg_true()[0])]
    # An occasional text among numbers is a mistake; many are a category.
    if digits >= 95 and others < 0.05 * (digits + others):
        share = digits / (digits + others)
        return (
            f'"{text}" is not a number, but {share:.1%} of the values in this column are '
            f"({others:,} {'is' if others == 1 else 'are'} not){_MEND}"
        )
    # Numbers up to a row and texts from there on are a change of type, unless the rows are sorted.
    apart = numbers.is_not_null().arg_true()[-1] < wrong.arg_true()[0]
    if apart and min(digits, others) >= _CHANGES and not texts.is_sorted():
        return (
            f'"{text}" is not a number, but all {digits:,} values above it are, and none below'
            f"{_MEND}"
        )
    return None


def _time_column(name: str, seconds: pl.Series) -> Column:
    known = seconds.drop_nulls()
    if known.is_empty():
        return Column(name=name, kind="ignore", why="every value is missing")
    missing = seconds.null_count()
    if known.n_unique() == 1 and not missing:
        return Column(name=name, kind="ignore", why="always the same time")
    return Column(
        name=name,
        kind="number",
        time=True,
        missing_flag=missing > 0,
        why="a time" + (f"; missing in {missing / len(seconds):.1%}" if missing else ""),
    )


def _number_column(name: str, numbers: pl.Series, texts: pl.Series) -> Column:
    known = numbers.drop_nulls()
    distinct = known.n_unique()
    if known.is_empty():
        return Column(name=name, kind="ignore", why="every value is missing")
    if distinct == 1 and not numbers.null_count():
        return Column(name=name, kind="ignore", why=f"always {known[0]:g}")
    if (known == known.round()).all():
        if _counts_rows(known, distinct):
            return Column(name=name, kind="ignore", why="numbers the rows")
        if why := _codes(name, known, distinct):
            return _category(name, texts, why)
    scale, why = _scale(known)
    missing = numbers.null_count()
    return Column(
        name=name,
        kind="number",
        scale=scale,
        missing_flag=missing > 0,
        why=f"{distinct:,} different numbers, {why}"
        + (f"; missing in {missing / len(numbers):.1%}" if missing else ""),
    )


def _counts_rows(known: pl.Series, distinct: int) -> bool:
    """Whether a column is 0, 1, 2, ... or the like: sorted, each value once, without gaps."""
    if distinct < len(known) or distinct <= FEW:
        return False
    steps = known.diff().drop_nulls()
    return bool((steps == steps[0]).all())


def _codes(name: str, known: pl.Series, distinct: int) -> str | None:
    """Say why whole numbers look like codes; None when they look like numbers.

    Amounts and counts lie densely near their smaller values or are round; codes repeat, are large,
    and lie anywhere.
    """
    if distinct <= FEW:
        return f"{distinct} different whole numbers"
    if _ID_NAME.search(name):
        return "whole numbers, and the name says code or id"
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


def _scale(known: pl.Series) -> tuple[Scale, str]:
    size = known.abs()
    high, most = float(size.max()), float(size.quantile(0.9) or 0.0)  # pyright: ignore[reportArgumentType]
    heavy = high > HEAVY * max(most, 1e-12) or (float(known.skew() or 0.0) > 2 and known.min() >= 0)  # pyright: ignore[reportOperatorIssue]
    return ("log", "a long tail") if heavy else ("standard", "no long tail")


def _category(name: str, texts: pl.Series, what: str) -> Column:
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


def _list(name: str, tokens: pl.Series, what: str, separator: str) -> Column:
    if tokens.dtype.is_float():
        return Column(name=name, kind="ignore", why="lists of numbers with fractions")
    tokens = as_texts(tokens)
    distinct = tokens.drop_nulls().n_unique()
    if distinct == 0:
        return Column(name=name, kind="ignore", why="every value is missing")
    return Column(
        name=name,
        kind="list",
        separator=separator,
        values=Values(min_count=MIN_COUNT),
        why=f"{what}, {distinct:,} different",
    )


def _separator(known: pl.Series) -> str | None:
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
