"""Lists as Python and JSON write them: `['a', 'b']`, `["a", null]`, `(1, 2)`, `{3}`, `[1 2 3]`."""

import re
from collections.abc import Iterator

import polars as pl

from dlrm.data.features.missing import is_missing

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
