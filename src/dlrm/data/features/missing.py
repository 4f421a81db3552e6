"""Texts that mean that a value is missing, as programs and people write them."""

from collections.abc import Collection

import polars as pl

_EXCEL = ("#n/a", "#n/a n/a", "#na", "#value!", "#div/0!", "#null!", "#ref!", "#name?", "#num!")
_PANDAS_AND_R = ("na", "n/a", "n.a.", "<na>", "nan", "-nan", "nat", "none", "<none>")
_DATABASES = ("null", "<null>", "(null)", "[null]", "\\n", "nil")
_C = ("1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan", "1.#snan", "-1.#snan")
_SIGNS = ("", "-", "--", "---", "\N{EN DASH}", "\N{EM DASH}", "?", ".", "..")
MISSING_TEXTS = frozenset((*_EXCEL, *_PANDAS_AND_R, *_DATABASES, *_C, *_SIGNS))
"""What numbers, times and labels hold where they are missing, in lower case."""
CLASSES = frozenset(("-", "none"))
"""Those of them that are as often one of the two values of a label."""


def is_missing(texts: pl.Series) -> pl.Series:
    """Return a mask of the texts that usually mean missing; true where a text is null."""
    return texts.is_null() | texts.str.strip_chars().str.to_lowercase().is_in(list(MISSING_TEXTS))


def without(frame: pl.DataFrame, tokens: Collection[str]) -> pl.DataFrame:
    """Return a frame whose texts are null where they are one of some tokens."""
    if not tokens:
        return frame
    columns = []
    for column in frame.iter_columns():
        if column.dtype in (pl.String, pl.Categorical, pl.Enum):
            # Methods of a series take its name for a pattern where it looks like one.
            values = column.alias("").cast(pl.String).str.strip_chars()
            missing = values.is_in(list(tokens)).fill_null(value=False)
            columns.append(column.alias("").set(missing, None).alias(column.name))
    return frame.with_columns(columns)
