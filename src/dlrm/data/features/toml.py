"""The schema of a table as a TOML file that people read and edit."""

import json
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeGuard

from dlrm.data.features.column import KINDS, Column, Cross, Values, names_of
from dlrm.data.features.columns import Columns
from dlrm.errors import ConfigError, InputError, unknown

_HEAD = """\
# What becomes of each column. Edit it, and give it back: dlrm train FILE --schema THIS_FILE
#
# label       one column, or several: ["A", "B"]; task = "regression" where they are numbers;
#             weight = "COLUMN" for how much each row counts; label_format and weight_format as
#             format below
# kind        number, category, list, sequence or ignore
#             missing = ["unknown"] for texts that are missing in every column;
#             usual_missing = false where "n/a", "NULL", "-" and the like are not
# number      scale = "piecewise", in at most bins = N; "standard", "log", "log1p", "quantile" or
#             "none"; buckets = N for quantile buckets as well; dense = false for the buckets
#             alone; missing_flag = true;
#             format = how the column writes the number 1234.5: "1.234,5", "1234.5 kg", "1.2345 k"
#             time = true for times such as 2024-01-31 12:00:00; format = "month first", "day
#             first", "YYMMDDHH", "seconds", ...; calendar = true for its hour, weekday and recency
# category    min_count = N (rarer values share a row with unseen ones), hash_rows = N,
#             log_count = true, target_mean = true, target_score = true, embed = false
# list        separator = "|", or "[]" for lists such as ["a", "b"]; min_count, hash_rows; the
#             order of its values means nothing
# sequence    the same, the newest value last; max_length = N keeps the newest N
# A category, list or sequence with table = "NAME" shares the table of that name, or that column.
# A cross of two or three columns is a category too:
#   [[cross]]
#   columns = ["A", "B"]
"""
_NUMBER = ("scale", "bins", "buckets", "dense", "missing_flag", "time", "format", "calendar")
_OF_VALUES = names_of(Values)
_OF_KIND: dict[str, tuple[str, ...]] = {
    "number": _NUMBER,
    "category": (*_OF_VALUES, "table"),
    "list": (*_OF_VALUES, "separator", "table"),
    "sequence": (*_OF_VALUES, "separator", "max_length", "table"),
    # What stood at an ignored column when it was something else does no harm.
    "ignore": (*_OF_VALUES, "separator", "max_length", "table", *_NUMBER),
}
"""Kind of a column -> its keys, beside `kind`."""
_OF_TABLE = (
    *("task", "positive", "weight", "label_format", "weight_format"),
    *("missing", "usual_missing"),
)
_KEYS = ("label", *_OF_TABLE, "columns", "cross")
_TYPES: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
}
"""Type of a setting -> the types that TOML may have for it, and what to call them."""
_SETTINGS = {
    setting.name: type(setting.default)
    for record in (Columns, Column, Values)
    for setting in fields(record)
} | {"positive": str, "weight": str, "kind": str}
_ALWAYS = ("scale", "separator", "min_count")
"""Settings that are written though they are as usual."""


def dumps(schema: Columns) -> str:
    """Return a schema as TOML, with the reasons as comments."""
    labels = _text(schema.labels[0]) if len(schema.labels) == 1 else _text(schema.labels)
    lines = [_HEAD, f"label = {labels}", *_settings(schema, _OF_TABLE)]
    for column in schema.columns:
        keys, values = _OF_KIND[column.kind] if column.kind != "ignore" else (), column.values
        lines += ["", f"[columns.{_text(column.name)}]"]
        lines.append(f"kind = {_text(column.kind)}{_comment(column.why)}")
        lines += _settings(column, [key for key in keys if key not in _OF_VALUES], _ALWAYS)
        lines += _settings(values, [key for key in keys if key in _OF_VALUES], _ALWAYS)
    for cross in schema.crosses:
        lines += ["", "[[cross]]", f"columns = {_text(cross.columns)}{_comment(cross.why)}"]
        lines += _settings(cross.values, _OF_VALUES)
    return "\n".join(lines) + "\n"


def load(file: Path) -> Columns:
    """Read a schema.

    Raises:
        InputError: The file is missing or no TOML.
        ConfigError: A key is unknown or a value has no meaning; names the column.

    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=file) from error
    except UnicodeDecodeError as error:
        raise InputError("is not UTF-8 text, expected a schema in TOML", file=file) from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"is not TOML: {error}", file=file) from error
    try:
        return from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error


def from_dict(values: dict[str, Any]) -> Columns:
    """Return the schema that TOML's values describe.

    Raises:
        ConfigError: A key is unknown or a value has no meaning; names the column.

    """
    for key in values:
        if key not in _KEYS:
            raise unknown("key", key, _KEYS)
    labels = values.get("label")
    labels = [labels] if isinstance(labels, str) else labels
    if not labels or not _are_texts(labels):
        raise ConfigError('the schema names no label, expected label = "COLUMN"')
    given = {key: value for key, value in values.items() if key in _OF_TABLE}
    if isinstance(positive := given.get("positive"), bool | int | float):
        given["positive"] = str(positive).lower()
    missing = given.pop("missing", [])
    if not _are_texts(missing):
        raise ConfigError(f'missing is {missing!r}, expected texts, as in ["unknown", "9999"]')
    _check("", given, _OF_TABLE)
    columns, crosses = values.get("columns", {}), values.get("cross", [])
    if not isinstance(columns, dict) or not isinstance(crosses, list):
        raise ConfigError("expected the columns as [columns.NAME], and crosses as [[cross]]")
    return Columns(
        labels=tuple(labels),
        missing=tuple(missing),
        columns=tuple(_column(name, settings) for name, settings in columns.items()),
        crosses=tuple(map(_cross, crosses)),
        **given,
    )


def to_dict(schema: Columns) -> dict[str, Any]:
    """Return a schema as JSON-ready values, as `from_dict` takes them."""
    return tomllib.loads(dumps(schema))


def _column(name: str, given: dict[str, Any]) -> Column:
    where = f"column {name}"
    if not isinstance(given, dict) or "kind" not in given:
        raise ConfigError(f'{where} has no kind, expected e.g. kind = "category"')
    kind = given["kind"]
    _check(where, {"kind": kind}, ("kind",))
    if kind not in KINDS:
        raise unknown(f"kind of {where}", kind, KINDS)
    _check(where, given, ("kind", *_OF_KIND[kind]))
    given = {"kind": kind} if kind == "ignore" else given
    with _named(where):
        values = Values(**{key: value for key, value in given.items() if key in _OF_VALUES})
        settings = {key: value for key, value in given.items() if key not in _OF_VALUES}
        return Column(name=name, values=values, **settings)


def _cross(given: dict[str, Any]) -> Cross:
    names = given.get("columns") if isinstance(given, dict) else None
    if not _are_texts(names):
        raise ConfigError('a [[cross]] names no columns, expected columns = ["A", "B"]')
    where = f"the cross {' x '.join(names)}"
    given = {key: value for key, value in given.items() if key != "columns"}
    _check(where, given, _OF_VALUES)
    with _named(where):
        return Cross(columns=tuple(names), values=Values(**given))


def _are_texts(values: Any) -> TypeGuard[list[str]]:
    return isinstance(values, list) and all(isinstance(text, str) for text in values)


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Name the column or the cross in errors that do not."""
    try:
        yield
    except ConfigError as error:
        known = where in str(error) or (where.startswith("the cross") and "cross" in str(error))
        raise ConfigError(str(error) if known else f"{where}: {error}") from error


def _check(where: str, given: dict[str, Any], keys: Sequence[str]) -> None:
    """Raise a ConfigError unless each key is one of these, and its value of its setting's type."""
    where = f"{where}: " if where else ""
    for key, value in given.items():
        if key not in keys:
            choices = ", ".join(name for name in keys if name != "kind")
            raise ConfigError(f'{where}unknown key "{key}"; choose one of: {choices}')
        types, expected = _TYPES[_SETTINGS[key]]
        if type(value) not in types:
            raise ConfigError(f"{where}{key} is {value!r}, expected {expected}")


def _settings(
    record: Columns | Column | Values, keys: Iterable[str], always: Sequence[str] = ()
) -> list[str]:
    defaults = {setting.name: setting.default for setting in fields(record)}
    values = {key: getattr(record, key) for key in keys}
    return [
        f"{key} = {_text(value)}"
        for key, value in values.items()
        if key in always or value != defaults[key]
    ]


def _text(value: Any) -> str:
    # JSON's escapes are TOML's, but for the two code points that JSON leaves as they are.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    words = " ".join(text.split())
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in words)
    return f"  # {shown}" if shown else ""
