"""The rows of a table, checked: labels and weights that are some, and numbers that are numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.bad_rows import BadRows, OnBadRow
from dlrm.data.features.column import LISTS
from dlrm.data.features.columns import Columns
from dlrm.data.features.labels import WEIGHT, Label, encode_weights, stack_labels
from dlrm.data.features.list_text import wrong_lists
from dlrm.data.features.number import wrong_numbers
from dlrm.data.features.texts import as_texts
from dlrm.data.sources.raw_table import RawTable
from dlrm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedRows:
    """What is known of n rows before features are fitted."""

    labels: NDArray[Any]
    """(n, K) uint8, for regression float32"""
    weights: NDArray[np.float32] | None
    """(n,) None for 1 each"""
    bad: NDArray[np.bool_]
    """(n,) rows that are left out"""
    bad_rows: BadRows
    """Why they are."""


def check_rows(
    table: RawTable,
    schema: Columns,
    labels: Sequence[Label],
    on_bad_row: OnBadRow,
    *,
    varied: bool = True,
) -> CheckedRows:
    """Return labels and weights of all rows, and which rows are bad.

    Args:
        table: The rows.
        schema: What the columns are.
        labels: What the labels mean.
        on_bad_row: Stop at a row that is not what it should be, or leave it out.
        varied: Whether labels must differ, so that there is something to learn.

    Raises:
        InputError: A row is bad; names file, line and column.
        ConfigError: A label is the same in every row.

    """
    bad_rows = BadRows()
    for fault in table.faults:
        bad_rows.add(fault.reason, fault.error)
    bad = np.zeros(table.rows, np.bool_)

    def mark(column: str, wrong: pl.Series, values: pl.Series, expected: str) -> None:
        for row in wrong.arg_true().to_list():
            error = table.error(row, column, f"{shown(values[row])}, expected {expected}")
            if on_bad_row == "error":
                raise error
            if not bad[row]:
                bad_rows.add(column, error)
            bad[row] = True

    encoded = []
    for label in labels:
        values = table.column(label.name)
        encoded.append(label.encode(values))
        expected = f"{label.expected} in every row (or --bad-rows skip)"
        mark(label.name, encoded[-1].is_null(), as_texts(values), expected)
    weights = None
    if schema.weight is not None:
        values = table.column(schema.weight)
        weighed = encode_weights(values, schema.weight_format)
        mark(schema.weight, weighed.is_null(), as_texts(values), WEIGHT)
        weights = weighed.fill_null(0).to_numpy().copy()
    for column in schema.used():
        if column.kind == "number":
            values, reading = table.column(column.name), schema.reading(column)
            known = table.numbers(column.name, reading)
            for name, wrong, expected in wrong_numbers(values, reading, known):
                mark(name, wrong, values, f'{expected} (or kind = "category" in the schema)')
        elif column.kind in LISTS:
            values = table.column(column.name)
            for name, wrong, expected in wrong_lists(values, column.separator):
                mark(name, wrong, values, f"{expected} (or --bad-rows skip)")
    stacked = stack_labels(encoded, schema.task)
    if varied:
        _check_varied(stacked[~bad], labels)
    if weights is not None and not weights[~bad].any():
        raise ConfigError(
            f"the weight {schema.weight} is 0 in every row: there is nothing to learn"
        )
    return CheckedRows(labels=stacked, weights=weights, bad=bad, bad_rows=bad_rows)


def _check_varied(labels: NDArray[Any], meant: Sequence[Label]) -> None:
    """Raise a ConfigError where a label is the same in all rows (n, K)."""
    for column, label in zip(labels.T, meant, strict=True):
        if not len(column) or column.min() < column.max():
            continue
        if label.task == "regression":
            raise ConfigError(
                f"the label {label.name} is {column[0]:g} in every row: nothing to learn"
            )
        value = "a click" if column[0] else "no click"
        known = ", ".join(f'"{value}"' for value in label.values[:5])
        known += ", ..." if len(label.values) > 5 else ""
        raise ConfigError(
            f'the label {label.name} is {value} in every row, as a click is "{label.click}": '
            f"nothing to learn; its values are {known}, of which --positive says what a click is"
        )


def shown(value: object) -> str:
    """Return a raw value as an error quotes it."""
    if value is None:
        return "is missing"
    text = str(value)
    return f'is "{text[:60]}{"..." if len(text) > 60 else ""}"'
