"""The schema of a table as a TOML file that people read and edit."""

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from dlrm.data.features.column import KINDS, WITH_IDS, Column, Cross, Values, names_of
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
_OF_KIND: dict[str, tuple[str, ...]] = {
    "number": _NUMBER,
    "category": ("table",),
    "list": ("separator", "table"),
    "sequence": ("separator", "max_length", "table"),
}
"""Kind of a column -> its own keys; of values all but numbers have others."""
_OF_LABELS = ("positive", "weight", "label_format", "weight_format")
_KEYS = ("label", "task", *_OF_LABELS, "missing", "usual_missing", "columns", "cross")
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_KNOWN = ("separator", "max_length", "table", *_NUMBER, *names_of(Values))


def dumps(schema: Columns) -> str:
    """Return a schema as TOML, with the reasons as comments."""
    labels = ", ".join(_text(name) for name in schema.labels)
    lines = [_HEAD, f"label = {labels if len(schema.labels) == 1 else f'[{labels}]'}"]
    if schema.task != "classification":
        lines.append(f"task = {_text(schema.task)}")
    for key in _OF_LABELS:
        if (value := getattr(schema, key)) != ("" if key.endswith("format") else None):
            lines.append(f"{key} = {_text(value)}")
    if schema.missing:
        lines.append(f"missing = [{', '.join(map(_text, schema.missing))}]")
    if not schema.usual_missing:
        lines.append("usual_missing = false")
    for column in schema.columns:
        lines += ["", f"[columns.{_text(column.name)}]"]
        lines.append(
            f"kind = {_text(column.kind)}" + (f"  # {_line(column.why)}" if column.why else "")
        )
        lines += _settings(column, _OF_KIND.get(column.kind, ()), always=("scale", "separator"))
        if column.kind in WITH_IDS:
            lines += _settings(column.values, names_of(Values), always=("min_count",))
    for cross in schema.crosses:
        names = ", ".join(map(_text, cross.columns))
        lines += [
            "",
            "[[cross]]",
            f"columns = [{names}]" + (f"  # {_line(cross.why)}" if cross.why else ""),
        ]
        lines += _settings(cross.values, names_of(Values), always=())
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
    label = values.get("label")
    named = label if isinstance(label, list) else [label]
    labels = [name for name in named if isinstance(name, str)]
    if not labels or len(labels) < len(named):
        raise ConfigError('the schema names no label, expected label = "COLUMN"')
    for key in _OF_LABELS[1:]:
        if not isinstance(values.get(key, ""), str):
            raise ConfigError(f"{key} is {values[key]!r}, expected a text")
    positive = values.get("positive")
    if isinstance(positive, bool):
        positive = str(positive).lower()
    missing, usual = values.get("missing", []), values.get("usual_missing", True)
    if not isinstance(missing, list) or not all(isinstance(text, str) for text in missing):
        raise ConfigError(f'missing is {missing!r}, expected texts, as in ["unknown", "9999"]')
    if not isinstance(usual, bool):
        raise ConfigError(f"usual_missing is {usual!r}, expected true or false")
    named, crossed = values.get("columns", {}), values.get("cross", [])
    if not isinstance(named, dict) or not isinstance(crossed, list):
        raise ConfigError("expected the columns as [columns.NAME], and crosses as [[cross]]")
    columns = [_column(name, given) for name, given in named.items()]
    crosses = [_cross(given) for given in crossed]
    return Columns(
        labels=tuple(labels),
        task=values.get("task", "classification"),
        weight=values.get("weight"),
        label_format=values.get("label_format", ""),
        weight_format=values.get("weight_format", ""),
        positive=None if positive is None else str(positive),
        missing=tuple(missing),
        usual_missing=usual,
        columns=tuple(columns),
        crosses=tuple(crosses),
    )


def to_dict(schema: Columns) -> dict[str, Any]:
    """Return a schema as JSON-ready values, as `from_dict` takes them."""
    return tomllib.loads(dumps(schema))


def _column(name: str, given: dict[str, Any]) -> Column:
    where = f"column {name}"
    if not isinstance(given, dict) or "kind" not in given:
        raise ConfigError(f'{where} has no kind, expected e.g. kind = "category"')
    kind = given["kind"]
    if not isinstance(kind, str):
        raise ConfigError(f"{where}: kind is {kind!r}, expected a text")
    if kind not in KINDS:
        raise unknown(f"kind of {where}", kind, KINDS)
    # What stood at an ignored column when it was something else does no harm.
    left = ("kind", *(_KNOWN if kind == "ignore" else ()))
    rest = {key: value for key, value in given.items() if key not in left}
    own, shared = _OF_KIND.get(kind, ()), names_of(Values) if kind in WITH_IDS else ()
    _check(where, rest, (*shared, *own))
    of_values = {key: value for key, value in rest.items() if key not in own}
    of_column = {key: value for key, value in rest.items() if key in own}
    with _named(where):
        return Column(name=name, kind=kind, values=Values(**of_values), **of_column)


def _cross(given: dict[str, Any]) -> Cross:
    names = given.get("columns") if isinstance(given, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError('a [[cross]] names no columns, expected columns = ["A", "B"]')
    where = f"the cross {' x '.join(names)}"
    rest = {key: value for key, value in given.items() if key != "columns"}
    _check(where, rest, names_of(Values))
    with _named(where):
        return Cross(columns=tuple(names), values=Values(**rest))


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Name the column or the cross in errors that do not."""
    try:
        yield
    except ConfigError as error:
        known = where in str(error) or (where.startswith("the cross") and "cross" in str(error))
        raise ConfigError(str(error) if known else f"{where}: {error}") from error


def _check(where: str, given: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Raise a ConfigError unless each key is one of these, and its value of its field's type."""
    kinds = {setting.name: type(setting.default) for setting in (*fields(Column), *fields(Values))}
    for key, value in given.items():
        if key not in keys:
            choices = ", ".join(keys) or "kind"
            raise ConfigError(f'{where}: unknown key "{key}"; choose one of: {choices}')
        if type(value) not in ((int, float) if kinds[key] is float else (kinds[key],)):
            raise ConfigError(f"{where}: {key} is {value!r}, expected {_TYPES[kinds[key]]}")


def _settings(record: Column | Values, keys: tuple[str, ...], always: tuple[str, ...]) -> list[str]:
    defaults = {field.name: field.default for field in fields(record)}
    lines = []
    for key in keys:
        value = getattr(record, key)
        if key in always or value != defaults[key]:
            lines.append(f"{key} = {_text(value) if isinstance(value, str) else json.dumps(value)}")
    return lines


def _text(text: str) -> str:
    # JSON's escapes are TOML's, but for the two code points that JSON leaves as they are.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _line(text: str) -> str:
    words = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in words)
