"""Labels and weights of rows: what they mean, and which rows have none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.columns import Columns
from dlrm.data.features.number_text import CLASSES, is_missing, recognise
from dlrm.data.features.texts import (
    NumberReading,
    as_numbers,
    as_texts,
    comparison,
    is_text,
    positives,
    recognised,
)
from dlrm.data.sources.raw_table import RawTable
from dlrm.errors import ConfigError
from dlrm.schema import Task

WEIGHT = "a weight, which is a number that is 0 or more"
"""What a weight should be, in words."""
_MOST_VALUES = 1000
_SHOWN_VALUES = 5
_LARGEST = float(np.finfo(np.float32).max)


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
        """What a value should be, in words."""
        if self.task == "regression":
            return "a number"
        few = 0 < len(self.values) <= _SHOWN_VALUES
        return " or ".join(f'"{value}"' for value in self.values) if few else "a label"

    def encode(self, values: pl.Series) -> pl.Series:
        """Return labels: clicks (UInt8) or numbers (Float32); null where a value is neither."""
        if self.task == "classification":
            return positives(list(self.values), self.click, self.format)(as_texts(values))
        numbers, _ = as_numbers(values, NumberReading(self.format))
        return numbers.set(numbers.abs() > _LARGEST, None).cast(pl.Float32)

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


def fit_labels(table: RawTable, schema: Columns) -> tuple[Label, ...]:
    """Return what the labels of a table mean."""
    if schema.task == "regression":
        return _numbers(table, schema)
    texts = {name: table.texts(name) for name in schema.labels}
    values = {name: _values(column, schema) for name, column in texts.items()}
    if schema.positive is None:
        _check_kinds(values)
    return tuple(
        Label(
            name=name,
            click=recognised(
                distinct, schema.positive, name, others=_others(texts[name], distinct)
            ),
            values=tuple(distinct) if len(distinct) <= _MOST_VALUES else (),
            format=schema.label_format,
        )
        for name, distinct in values.items()
    )


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


def _others(texts: pl.Series, distinct: list[str]) -> str:
    """Say which rows of a label have none of its values; empty where all have one."""
    lacking = texts.filter(~texts.is_in(distinct).fill_null(value=False))
    if lacking.is_empty():
        return ""
    written = [f'"{text}"' for text in lacking.drop_nulls().unique(maintain_order=True)[:3]]
    shown = f" ({', '.join(written)})" if written else ""
    return f"{len(lacking):,} of {len(texts):,} rows have none{shown}"


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
    plain = Label(name="", task="regression", click="", values=(), format=schema.label_format)
    return tuple(replace(plain, name=name) for name in schema.labels)


def _check_kinds(values: dict[str, list[str]]) -> None:
    two = [name for name, distinct in values.items() if len(distinct) <= 2]
    more = [name for name, distinct in values.items() if len(distinct) > 2]
    if two and more:
        shown = ", ".join(f'"{value}"' for value in values[more[0]][:5])
        raise ConfigError(
            f"labels of different kinds: {two[0]} has two values, but {more[0]} has "
            f"{len(values[more[0]])} ({shown}{', ...' if len(values[more[0]]) > 5 else ''}); one "
            "run has labels that are all clicks, or all numbers (--task regression)"
        )
