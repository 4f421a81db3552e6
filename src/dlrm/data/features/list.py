"""Lists and sequences as a model sees them: any number of ids a row.

Their texts have a separator between values, or are lists as Python and JSON write them:
`['a', 'b']`, `["a", null]`, `(1, 2)`, `{3}`, `[1 2 3]`.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, compress
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.column import Column, Values, names_of
from dlrm.data.features.inputs import Input, Parts
from dlrm.data.features.number_text import is_missing
from dlrm.data.features.rows import FEW_ROWS, Rows, as_series, text_values
from dlrm.data.features.texts import as_texts
from dlrm.data.index import Keys
from dlrm.data.threads import check_pool
from dlrm.data.vocabulary import Vocabulary, distinct, hash_vocabulary, hashed

LITERALS = "[]"
"""The separator of a column of such texts."""
_QUOTED = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'"""
_ITEM = rf"""(?s){_QUOTED}|[^\[\](){{}},'"\s][^\[\](){{}},'"]*"""
_WORD = rf"""(?s){_QUOTED}|[^\[\](){{}},'"\s]+"""
"""What stands between spaces, in a list without commas, as numpy writes it."""
_CALLS = r"\b(?:np\.\w+|array|set|frozenset|Index)\("
_DTYPE = r",\s*dtype=[\w<>'.]+"
_TUPLE = r"\(\s*\)|\(.*,.*\)"
"""Neither `(unknown)` nor `(3)`."""
_LIST = rf"(?s)^\s*(?:{_CALLS}\s*\)|(?:{_CALLS})?(?:\[.*\]|\{{.*\}}|{_TUPLE})[^\[\]{{}}]*)$"
_DICT = rf"^\s*(?:[\[(]\s*)?\{{\s*(?:{_QUOTED}|[^,'\"]*?)\s*:"
_MISSING = ("None", "null", "nan", "NaN", "NA", "<NA>")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
LEAST_SHARE = 0.95


def are_lists(texts: pl.Series) -> bool:
    """Whether nearly all texts, none of them null, are such lists; some may be broken off."""
    lists, objects = _are_whole(texts), texts.str.contains(_DICT)
    broken = texts.str.contains(r"^\s*[\[({]") & ~lists & ~objects
    return _most(lists | broken) and int(lists.sum()) > int(broken.sum())


def _are_whole(texts: pl.Series) -> pl.Series:
    return texts.str.contains(_LIST) & ~texts.str.contains(_DICT)


def wrong_lists(values: pl.Series, separator: str) -> Iterator[tuple[str, pl.Series, str]]:
    """Yield name, mask and what is expected, where texts of a list column are no lists."""
    if separator != LITERALS or values.dtype.is_nested():
        return
    texts = values.alias("").cast(pl.String)
    wrong = (~_are_whole(texts) & ~is_missing(texts)).fill_null(value=False)
    if wrong.any():
        yield values.name, wrong, 'a list such as ["a", "b"]'


def are_objects(texts: pl.Series) -> bool:
    """Whether nearly all texts, none of them null, are objects of JSON, dicts, or lists of them."""
    return _most(texts.str.contains(_DICT) | texts.is_in(["{}", "[]"])) and not are_lists(texts)


def _most(mask: pl.Series) -> bool:
    return len(mask) > 0 and float(mask.mean()) >= LEAST_SHARE  # pyright: ignore[reportArgumentType]


def list_items(texts: pl.Series) -> pl.Series:
    """Return the items of each list, as they are written; null where a text is null."""
    texts = texts.set(is_missing(texts), None)
    plain = texts.str.replace_all(_CALLS, "(").str.replace(_DTYPE, "")
    # Of unquoted items, those with commas between them may have spaces in them.
    commas = plain.str.contains(",", literal=True)
    return plain.str.extract_all(_ITEM).zip_with(commas, plain.str.extract_all(_WORD))


def unquoted(items: pl.Series) -> pl.Series:
    """Return the items of lists (n,) as values; null where one is None, null or the like."""
    quoted = items.str.contains(r"""^["']""").fill_null(value=False)
    values = items.set(~quoted & items.is_in(list(_MISSING)), None)
    inner = values.str.slice(1, values.str.len_chars() - 2)
    values = inner.zip_with(quoted, values)
    escaped = quoted & values.str.contains("\\", literal=True).fill_null(value=False)
    if not escaped.any():
        return values
    distinct = values.filter(escaped).unique()
    plain = pl.Series([_plain(text) for text in distinct], dtype=pl.String)
    return values.replace(distinct, plain).zip_with(escaped, values)


def _plain(text: str) -> str:
    """Return a text without its escapes, of which JSON writes two for some letters."""
    plain = _ESCAPE.sub(_letter, text)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _letter(escape: re.Match[str]) -> str:
    letter = escape.group(1)
    if len(letter) > 1:
        return chr(int(letter[1:], 16))
    return _LETTERS.get(letter, letter)


@dataclass(frozen=True, kw_only=True, slots=True)
class List:
    """A fitted list column: a bag of values a row, or a sequence of them."""

    name: str
    separator: str
    """What stands between the values of a text."""
    values: Values
    table: Vocabulary | None
    """The values that have ids; None where they are hashed."""
    table_name: str = ""
    """Name of the model's table, where other columns share it."""
    kind: Literal["bag", "sequence"] = "bag"
    """Whether the order of the values means nothing, or the last one is the newest."""
    max_length: int = 0
    """Values that are kept of a longer sequence, the newest; 0 for all."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that `encode` needs."""
        return (self.name,)

    @property
    def num_embeddings(self) -> int:
        """Rows of its table."""
        return self.table.num_embeddings if self.table else self.values.hash_rows

    @classmethod
    def fit(
        cls,
        column: Column,
        values: pl.Series,
        *,
        shared: Vocabulary | None = None,
        table_name: str = "",
    ) -> "List":
        """Fit to the training rows."""
        table = shared
        if column.values.hash_rows:
            table = None
        elif table is None:
            groups, _ = distinct(as_series(split_lists(values, column.separator)[0]))
            often = groups.filter(pl.col("count") >= column.values.min_count)
            table = Vocabulary(column.name, often, num_ids=often.height)
        return cls(
            name=column.name,
            separator=column.separator,
            values=column.values,
            table=table,
            table_name=table_name,
            kind="sequence" if column.kind == "sequence" else "bag",
            max_length=column.max_length,
        )

    def inputs(self) -> list[Input]:
        """Return what the model gets of it."""
        return [
            Input(
                name=self.name,
                num_embeddings=self.num_embeddings,
                kind=self.kind,
                max_length=self.max_length,
                table=self.table_name,
            )
        ]

    def tables(self) -> list[Vocabulary]:
        """Return the values that it keeps in files."""
        return [] if self.table is None else [self.table]

    def encode(self, rows: pl.DataFrame | Rows) -> Parts:
        """Return the lists of n rows."""
        rows = Rows.of(rows)
        if self.name not in rows.known_lists:
            column = rows.columns[self.name]
            rows.known_lists[self.name] = split_lists(column, self.separator)
        keys, lengths = rows.known_lists[self.name]
        if self.max_length and len(lengths) and lengths.max() > self.max_length:
            # Counted from the end of its list, each value has a place; the first ones are kept.
            ends = np.repeat(np.cumsum(lengths), lengths)
            newest = ends - np.arange(len(ends)) <= self.max_length
            series = isinstance(keys, pl.Series)
            keys = keys.filter(pl.Series(newest)) if series else list(compress(keys, newest))
            lengths = np.minimum(lengths, self.max_length)
        if self.table is None:
            return Parts(ids=[(hashed(keys, self.values.hash_rows), lengths)])
        return Parts(ids=[(self.table.ids(keys), lengths)])

    def too_long(self, values: pl.Series) -> int:
        """Return how many of these raw lists are longer than what is kept of them."""
        if not self.max_length:
            return 0
        return int((split_lists(values, self.separator)[1] > self.max_length).sum())

    def vocabulary(self) -> Vocabulary:
        """Return the values with a row of their own."""
        if self.table is None:
            return hash_vocabulary(self.name, self.num_embeddings)
        return self.table.known()

    def to_dict(self, tables: list[Vocabulary]) -> dict[str, Any]:
        """Return it as JSON-ready values; its table is named by its place among all."""
        settings = {name: getattr(self, name) for name in names_of(List)}
        table = None if self.table is None else tables.index(self.table)
        return {"type": "list", **settings, "values": asdict(self.values), "table": table}

    @classmethod
    def from_dict(cls, values: dict[str, Any], tables: list[Vocabulary]) -> "List":
        """Rebuild what `to_dict` returned."""
        settings = {name: values[name] for name in names_of(cls)}
        table = None if values["table"] is None else tables[values["table"]]
        return cls(**settings | {"values": Values(**values["values"]), "table": table})


def split_lists(column: pl.Series, separator: str) -> tuple[Keys, NDArray[np.int64]]:
    """Return the values of all lists one after another, and the length of each list (n,)."""
    dtype = column.dtype
    nested = isinstance(dtype, pl.List | pl.Array)
    if len(column) <= FEW_ROWS and (nested or separator != LITERALS):
        few = _few_lists(column.to_list(), type(dtype), separator, dtype.inner if nested else None)
        if few is not None:
            return list(chain(*few)), np.array([len(texts) for texts in few], np.int64)
    check_pool()
    literal = not nested and separator == LITERALS
    if not nested:
        texts = as_texts(column)
        column = list_items(texts) if literal else texts.str.split(separator)
    frame = pl.DataFrame({"row": pl.int_range(len(column), eager=True), "value": column})
    flat = frame.explode("value", empty_as_null=True)
    values = as_texts(unquoted(flat["value"]) if literal else flat["value"])
    flat = flat.with_columns(values.alias("value")).drop_nulls("value")
    lengths = np.bincount(flat["row"].to_numpy(), minlength=len(column)).astype(np.int64)
    return flat["value"], lengths


def _few_lists(
    values: list[Any], kind: type[pl.DataType], separator: str, inner: Any
) -> list[list[str]] | None:
    """Return the values of a few lists; None where that is left to Polars."""
    if inner is None:
        texts = text_values(values, kind)
        if texts is None:
            return None
        values = [() if text is None else text.split(separator) for text in texts]
    kind = pl.String if inner is None else type(inner)
    lists = [text_values(items or (), kind) for items in values]
    if None in lists:
        return None
    return [[text for text in texts or () if text is not None] for texts in lists]
