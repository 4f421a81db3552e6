"""A raw table whose rows are checked and divided, and whose schema is settled.

Labels and weights must be some, and numbers numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.division import divide
from dlrm.data.features.column import LISTS
from dlrm.data.features.columns import Columns
from dlrm.data.features.fit import FittingRows
from dlrm.data.features.labels import (
    WEIGHT,
    Label,
    encode_weights,
    fit_labels,
    stack_labels,
    with_formats,
)
from dlrm.data.features.leaks import with_leaks
from dlrm.data.features.list import wrong_lists
from dlrm.data.features.number import expected_number
from dlrm.data.features.table_schema import check_columns
from dlrm.data.features.texts import as_texts
from dlrm.data.options import PrepareConfig
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.sources.source import BadRows
from dlrm.data.split import TRAIN, Places, Protocol
from dlrm.errors import ConfigError, DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTable:
    """A table of n rows, ready for features to be fitted to it."""

    raw: RawTable
    schema: Columns
    targets: tuple[Label, ...]
    """What the labels mean."""
    labels: NDArray[Any]
    """(n, K) uint8, for regression float32"""
    weights: NDArray[np.float32] | None
    """(n,) None for 1 each"""
    bad: NDArray[np.bool_]
    """(n,) rows that are left out"""
    bad_rows: BadRows
    """Why they are."""
    where: Places
    """(n,) the split of each row, a place in SPLITS; negative where it is in none"""
    notes: tuple[str, ...]
    """What to say of labels and splits."""

    @property
    def good_rows(self) -> int:
        """How many rows are not left out."""
        return int((~self.bad).sum())

    def fitting_rows(self) -> FittingRows:
        """Return the rows that features are fitted to."""
        train = np.flatnonzero(self.where == TRAIN)
        if not len(train) and not self.schema.whole_log:
            raise DatasetError("no row is left to train on; see prepare.fractions")
        return FittingRows(
            table=self.raw,
            train=train,
            labels=self.labels[train, 0],
            good=~self.bad,
        )


def check_table(
    raw: RawTable, schema: Columns, config: PrepareConfig, *, default: Protocol = "random"
) -> CheckedTable:
    """Check the rows of a table, divide them into splits, and choose features where that is asked.

    Raises:
        InputError: A row is not what it should be; names file, line and column.
        ConfigError: The label or the schema does not fit the table.
        DatasetError: There are no rows to train on.

    """
    raw = raw.with_missing(schema.missing)
    check_columns(schema, raw)
    schema, notes = with_formats(raw, schema)
    # A log of a known format says what its labels are; part of one may have but one of them.
    log = schema.whole_log
    targets = tuple(map(Label, schema.labels)) if log else fit_labels(raw, schema)
    table = check_rows(raw, schema, targets, config, default=default, varied=not log)
    rows = table.fitting_rows()
    schema = with_leaks(rows, schema)
    if config.features.select == "auto":
        from dlrm.data.features.auto import choose

        if schema.task == "regression":
            raise ConfigError("features auto is for clicks, but the task is regression")
        schema = choose(rows, schema, seed=config.seed)
    return replace(table, schema=schema, notes=notes + table.notes)


def check_rows(
    raw: RawTable,
    schema: Columns,
    targets: tuple[Label, ...],
    config: PrepareConfig,
    *,
    default: Protocol,
    varied: bool = True,
) -> CheckedTable:
    """Check the rows of a table, whose labels must differ where they are `varied`; divide them."""
    bad_rows = BadRows()
    for fault in raw.faults:
        bad_rows.add(fault.reason, fault.error)
    bad = np.zeros(raw.rows, np.bool_)

    def mark(
        column: str, wrong: pl.Series, values: pl.Series, expected: str, *, texts: bool = False
    ) -> None:
        if texts and wrong.any():
            values = as_texts(values)
        for row in wrong.arg_true().to_list():
            error = raw.error(row, column, f"{shown(values[row])}, expected {expected}")
            if config.bad_rows == "error":
                raise error
            if not bad[row]:
                bad_rows.add(column, error)
            bad[row] = True

    encoded = []
    for label in targets:
        values = raw.column(label.name)
        encoded.append(label.encode(values))
        expected = f"{label.expected} in every row (or --bad-rows skip)"
        mark(label.name, encoded[-1].is_null(), values, expected, texts=True)
    weights = None
    if schema.weight is not None:
        values = raw.column(schema.weight)
        weighed = encode_weights(values, schema.weight_format)
        mark(schema.weight, weighed.is_null(), values, WEIGHT, texts=True)
        weights = weighed.fill_null(0).to_numpy().copy()
    for column in schema.used():
        dtype = raw.types[column.name]
        if column.kind == "number" and (column.time or not dtype.is_integer()):
            reading = schema.reading(column)
            _, wrong = raw.numbers(column.name, reading)
            if wrong.any():
                expected = f'{expected_number(dtype, reading)} (or kind = "category" in the schema)'
                mark(column.name, wrong, raw.column(column.name), expected)
        elif column.kind in LISTS:
            values = raw.column(column.name)
            for name, wrong, expected in wrong_lists(values, column.separator):
                mark(name, wrong, values, f"{expected} (or --bad-rows skip)")
    stacked = stack_labels(encoded, schema.task)
    if varied:
        _check_varied(stacked[~bad], targets)
    if weights is not None and not weights[~bad].any():
        raise ConfigError(
            f"the weight {schema.weight} is 0 in every row: there is nothing to learn"
        )
    where, notes = divide(raw, schema, stacked, bad, config, default=default)
    return CheckedTable(
        raw=raw,
        schema=schema,
        targets=targets,
        labels=stacked,
        weights=weights,
        bad=bad,
        bad_rows=bad_rows,
        where=where,
        notes=notes,
    )


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
