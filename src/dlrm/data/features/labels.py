"""Labels and weights of rows: what they mean, and which rows have none."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.columns import Columns
from dlrm.data.features.number_text import CLASSES, is_missing, recognise
from dlrm.data.features.texts import NumberReading, as_numbers, as_texts, is_text
from dlrm.data.sources.raw_table import RawTable
from dlrm.errors import ConfigError
from dlrm.schema import Task

WEIGHT = "a weight, which is a number that is 0 or more"
"""What a weight should be, in words."""
_MOST_VALUES, _SHOWN_VALUES = 1000, 5
_LARGEST = float(np.finfo(np.float32).max)
_NO = ("0", "0.0", "false", "no", "n", "f", "-1", "negative", "-")
_YES = ("1", "1.0", "true", "yes", "y", "t", "positive", "+", "+1")
_COMPARED = re.compile(r"(>=|<=|>|<)\s*(\S.*)$")
_COMPARE: dict[str, Callable[[pl.Series, float], pl.Series]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True, slots=True)
class Label:
    """A label column, and how its values become numbers."""

    name: str
    task: Task = "classification"
    click: str = "1"
    """Classification: the value that means a click, or a comparison."""
    values: tuple[str, ...] = ("0", "1")
    """Classification: the values that the label may have; none where there are too many."""
    format: str = ""
    """How its numbers are written."""

    @property
    def expected(self) -> str:
        """Values that a label may have, in words, for errors."""
        if self.task == "regression":
            return "a number"
        few = 0 < len(self.values) <= _SHOWN_VALUES
        return " or ".join(f'"{value}"' for value in self.values) if few else "a label"

    def encode(self, values: pl.Series) -> pl.Series:
        """Return labels: clicks (UInt8) or numbers (Float32); null where a value is neither."""
        reading = NumberReading(self.format)
        if self.task == "regression":
            numbers, _ = as_numbers(values, reading)
            return numbers.set(numbers.abs() > _LARGEST, None).cast(pl.Float32)
        texts = as_texts(values)
        if self.click not in self.values and (compared := comparison(self.click, self.format)):
            compare, bound = compared
            return compare(as_numbers(texts, reading)[0], bound).cast(pl.UInt8)
        known = texts.is_in(list(self.values)) if self.values else ~is_missing(texts)
        return (texts == self.click).cast(pl.UInt8).set(~known.fill_null(value=False), None)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "name": self.name,
            "click": self.click,
            "values": list(self.values),
            "format": self.format,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any], task: Task) -> "Label":
        """Rebuild what `to_dict` returned."""
        return cls(**{**values, "values": tuple(values["values"])}, task=task)


def comparison(
    positive: str | None, text_format: str = ""
) -> tuple[Callable[[pl.Series, float], pl.Series], float] | None:
    """Return how a comparison such as `>= 4` or `>= 1,000` compares, and with what number.

    The number is read as those of a format, or else as it is written. None for what is no
    comparison.
    """
    compared = _COMPARED.match(positive or "")
    if compared is None:
        return None
    bound = pl.Series([compared[2]])
    for known in (text_format, recognise(bound)[0]):
        number = as_numbers(bound, NumberReading(known))[0][0]
        if number is not None:
            return _COMPARE[compared[1]], number
    return None


def fit_labels(table: RawTable, schema: Columns) -> tuple[Label, ...]:
    """Return what the labels of a table mean."""
    if schema.task == "regression":
        return _numbers(table, schema)
    texts = {name: table.texts(name) for name in schema.labels}
    values = {name: _values(column, schema) for name, column in texts.items()}
    if schema.positive is None:
        _check_kinds(values)
    labels = []
    for name, distinct in values.items():
        if not distinct:
            raise ConfigError(f"the label {name} is missing in every row")
        click = (
            _guessed(name, distinct, texts[name])
            if schema.positive is None
            else _asked(name, distinct, schema.positive)
        )
        few = tuple(distinct) if len(distinct) <= _MOST_VALUES else ()
        labels.append(Label(name, click=click, values=few, format=schema.label_format))
    return tuple(labels)


def _asked(name: str, distinct: list[str], positive: str) -> str:
    """Return which value of a label is a click, or a comparison, as the user says it."""
    positive = str(as_texts(pl.Series([positive]))[0] or "")
    if positive.lower() in ("true", "false"):
        positive = next((v for v in distinct if v.lower() == positive.lower()), positive)
    if positive not in distinct and comparison(positive) is None:
        shown = _quoted(distinct)
        raise ConfigError(f'the label {name} never is "{positive}", its values are {shown}')
    return positive


def _guessed(name: str, distinct: list[str], texts: pl.Series) -> str:
    """Return which value of a label is a click: 1, true, yes or the like."""
    shown = _quoted(distinct)
    if len(distinct) == 1:
        lacking = texts.filter(~texts.is_in(distinct).fill_null(value=False))
        if lacking.is_empty():
            raise ConfigError(
                f"the label {name} is {shown} in every row: there is nothing to learn; it needs "
                "rows of both kinds"
            )
        written = [f'"{text}"' for text in lacking.drop_nulls().unique(maintain_order=True)[:3]]
        others = f" ({', '.join(written)})" if written else ""
        raise ConfigError(
            f"the label {name} is {shown} wherever there is one, but {len(lacking):,} of "
            f"{len(texts):,} rows have none{others}: a missing label is not taken for the other "
            "class; write what it is in those rows, such as 0 (or, if one of these texts is a "
            "class, --only-empty-missing)"
        )
    if len(distinct) != 2:
        raise ConfigError(
            f"the label {name} has {len(distinct)} values ({shown}), expected two; say which is a "
            f'click, by value or by comparison, e.g. --positive "{distinct[-1]}" or '
            '--positive ">= 4"'
        )
    yes = [value for value in distinct if value.lower() in _YES]
    if len(yes) == 1 and any(value.lower() in _NO for value in distinct):
        return yes[0]
    raise ConfigError(
        f'the label {name} is {shown}: say which means a click, e.g. --positive "{distinct[0]}"'
    )


def _quoted(values: Sequence[str]) -> str:
    shown = ", ".join(f'"{value}"' for value in values[:_SHOWN_VALUES])
    return shown + (", ..." if len(values) > _SHOWN_VALUES else "")


def with_formats(table: RawTable, schema: Columns) -> tuple[Columns, tuple[str, ...]]:
    """Return a schema that says how labels and weights are written, and what to say of that."""
    notes: list[str] = []

    def recognised_format(name: str, what: str) -> str:
        values = table.column(name)
        text_format, doubt = recognise(as_texts(values)) if is_text(values) else ("", "")
        if text_format:
            note = f'{what} {name}: written as "{text_format}"'
            note += f"; {doubt.replace('format', f'{what}_format')}" if doubt else ""
            notes.append(note)
        return text_format

    if schema.task == "regression" or comparison(schema.positive):
        formats = (recognised_format(name, "label") for name in schema.labels)
        known = schema.label_format or next(filter(None, formats), "")
        schema = replace(schema, label_format=known)
    if schema.weight is not None and not schema.weight_format:
        schema = replace(schema, weight_format=recognised_format(schema.weight, "weight"))
    return schema, tuple(notes)


def _values(texts: pl.Series, schema: Columns) -> list[str]:
    """Return the values of a label, in order of appearance, without those that mean missing."""
    distinct = texts.drop_nulls().unique(maintain_order=True)
    if not schema.usual_missing:
        return distinct.to_list()
    missing = is_missing(distinct) & (distinct != (schema.positive or "")).fill_null(value=True)
    present = distinct.filter(~missing)
    words = distinct.filter(missing & distinct.str.to_lowercase().is_in(list(CLASSES)))
    # "-" beside "+" and "none" beside "some" are the other class.
    if len(present) == 1 and len(words) == 1 and not present[0].isdigit():
        return distinct.filter(~missing | (distinct == words[0])).to_list()
    return present.to_list()


def encode_weights(values: pl.Series, text_format: str = "") -> pl.Series:
    """Return weights (Float32); null where one is missing, negative, or no number."""
    numbers, _ = as_numbers(values, NumberReading(text_format))
    return numbers.set((numbers < 0) | (numbers > _LARGEST), None).cast(pl.Float32)


def stack_labels(labels: Sequence[pl.Series], task: Task) -> NDArray[Any]:
    """Return labels (n, K), uint8 or for regression float32; what is null becomes 0."""
    dtype = np.uint8 if task == "classification" else np.float32
    columns = [label.fill_null(0).to_numpy() for label in labels]
    return np.stack(columns, axis=1).astype(dtype, copy=False)


def _numbers(table: RawTable, schema: Columns) -> tuple[Label, ...]:
    for name in schema.labels:
        values = table.column(name)
        numbers, wrong = table.numbers(name, NumberReading(schema.label_format))
        if numbers.null_count() < len(numbers):
            continue
        if not wrong.any():
            raise ConfigError(f"the label {name} is missing in every row")
        others = [other for other in schema.labels if other != name]
        problem = f'the label {name} holds no numbers, but "{as_texts(values.filter(wrong))[0]}"'
        if others:
            problem = f"labels of different kinds: {problem}, beside {', '.join(others)}"
        raise ConfigError(f"{problem}; the task is regression, whose labels are numbers")
    return tuple(
        Label(name, "regression", click="", values=(), format=schema.label_format)
        for name in schema.labels
    )


def _check_kinds(values: dict[str, list[str]]) -> None:
    two = [name for name, distinct in values.items() if len(distinct) <= 2]
    more = [name for name, distinct in values.items() if len(distinct) > 2]
    if two and more:
        raise ConfigError(
            f"labels of different kinds: {two[0]} has two values, but {more[0]} has "
            f"{len(values[more[0]])} ({_quoted(values[more[0]])}); one run has labels that are all "
            "clicks, or all numbers (--task regression)"
        )
