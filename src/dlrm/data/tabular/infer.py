"""What the columns of a table are, guessed from their values; each guess says why.

Numbers whose order means nothing (codes, ids) look like numbers; what tells them apart is written
down here as rules, and the user reads the reason and may say otherwise in the schema.
"""

import re

import polars as pl

from dlrm.data.tabular.columns import Column, Columns, Kind, Scale, Values
from dlrm.data.tabular.raw import RawTable
from dlrm.data.tabular.texts import as_numbers, as_texts, is_text
from dlrm.errors import ConfigError

FEW = 20
"""Integers with at most so many distinct values are a category."""
MIN_COUNT = 2
"""Values seen once teach the row that unseen values will share."""
HEAVY = 20.0
"""A number whose largest value is so many times its 90th percentile is scaled by logarithm."""
_SEPARATORS = ("|", ";", ",", " ")
_ID_NAME = re.compile(
    r"(^|[_\W])(id|ids|code|codes|zip|zipcode|postcode|uid|sku|hash|key|type|class|category|group)"
    r"($|[_\W\d])|(?<=[a-z])(Id|ID|Code)$|(?i:^(user|item|movie|product|resource)$)"
)


def infer(table: RawTable, label: str, positive: str | None = None) -> Columns:
    """Return the schema of a table.

    Args:
        table: All its rows.
        label: Column to predict.
        positive: What the label is for a click; see `Columns`.

    Raises:
        ConfigError: There is no such label, or nothing to learn from.
        InputError: A column is numbers in nearly all rows; names the first other row.

    """
    table.check_column(label, "label column")
    names = [name for name in table.types if name != label]
    if not names:
        raise ConfigError(f"the table has no column but the label {label}")
    return Columns(
        label=label,
        positive=positive,
        columns=tuple(_column(table, name) for name in names),
    )


def _column(table: RawTable, name: str) -> Column:
    values = table.column(name)
    if isinstance(values.dtype, pl.List | pl.Array):
        return _list(name, values.explode(empty_as_null=True), "a list in the file", "|")
    if is_text(values):
        return _text_column(table, name, values)
    if values.dtype == pl.Boolean:
        return _category(name, as_texts(values), "true or false")
    if values.dtype.is_temporal():
        return Column(name=name, kind="number", why=f"a time ({values.dtype})")
    numbers, _ = as_numbers(values)
    return _number_column(name, numbers, as_texts(values))


def _text_column(table: RawTable, name: str, values: pl.Series) -> Column:
    texts = as_texts(values)
    known = texts.drop_nulls()
    if known.is_empty():
        return Column(name=name, kind="ignore", why="every value is missing")
    numbers, wrong = as_numbers(texts)
    others = int(wrong.sum())
    share = others / len(known)
    if others == 0:
        if numbers.null_count() == len(numbers):
            return Column(name=name, kind="ignore", why="every value is missing")
        return _number_column(name, numbers, texts)
    # An occasional text among numbers is a mistake; many are a category.
    if share < 0.05 and len(known) >= 100 and numbers.n_unique() > FEW:
        row = int(wrong.arg_true()[0])
        raise table.error(
            row,
            name,
            f'"{texts[row]}" is not a number, but {1 - share:.1%} of the values in this column are '
            f"({others:,} are not); mend the file, or write a schema (dlrm data infer) that makes "
            'it kind = "category"',
        )
    if separator := _separator(known):
        tokens = known.str.split(separator).explode()
        return _list(name, tokens, f'values with "{separator}" between them', separator)
    return _category(name, texts, "texts")


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
    filled = distinct / (high - low + 1)
    values = known.unique()
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
    kind: Kind = "list"
    tokens = as_texts(tokens)
    distinct = tokens.drop_nulls().n_unique()
    if distinct == 0:
        return Column(name=name, kind="ignore", why="every value is missing")
    return Column(
        name=name,
        kind=kind,
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
