"""The rows of a table, checked: labels that are clicks or not, and numbers that are numbers."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.bad_rows import BadRows
from dlrm.data.options import PrepareConfig
from dlrm.data.tabular.columns import Columns
from dlrm.data.tabular.encoder import wrong_numbers
from dlrm.data.tabular.raw import RawTable
from dlrm.data.tabular.texts import as_texts, positives, recognised
from dlrm.errors import ConfigError

_MOST_VALUES = 1000


def label_of(raw: RawTable, schema: Columns) -> tuple[str, tuple[str, ...]]:
    """Return what means a click, and the values of the label."""
    labels = as_texts(raw.column(schema.label)).drop_nulls().unique(maintain_order=True)
    values = labels.to_list()
    click = recognised(values, schema.positive, schema.label)
    return click, tuple(values) if len(values) <= _MOST_VALUES else ()


def check(
    raw: RawTable,
    schema: Columns,
    click: str,
    label_values: tuple[str, ...],
    config: PrepareConfig,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], BadRows]:
    """Return the labels of all rows, which rows are bad, and why."""
    bad_rows = BadRows()
    bad = np.zeros(raw.rows, np.bool_)

    def mark(column: str, wrong: pl.Series, texts: pl.Series, expected: str) -> None:
        for row in wrong.arg_true().to_list():
            error = raw.error(
                row,
                column,
                f"{_said(texts[row])}, expected {expected}",
            )
            if config.bad_rows == "error":
                raise error
            if not bad[row]:
                bad_rows.add(column, error)
            bad[row] = True

    texts = as_texts(raw.column(schema.label))
    clicks = positives(list(label_values), click, schema.label)(texts)
    mark(schema.label, clicks.is_null(), texts, "a label in every row (or --bad-rows skip)")
    for column in schema.used():
        if column.kind == "number":
            values = raw.column(column.name)
            for name, wrong, expected in wrong_numbers(values, time=column.time):
                mark(name, wrong, values, f'{expected} (or kind = "category" in the schema)')
    found = clicks.fill_null(0).to_numpy()
    good = found[~bad]
    if len(good) and good.min() == good.max():
        value = "a click" if good[0] else "no click"
        raise ConfigError(f"the label {schema.label} is {value} in every row: nothing to learn")
    return found, bad, bad_rows


def _said(value: object) -> str:
    if value is None:
        return "is missing"
    text = str(value)
    return f'is "{text[:60]}{"..." if len(text) > 60 else ""}"'
