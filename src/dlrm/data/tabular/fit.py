"""Features of a table, fitted on its training rows."""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.tabular.categories import Category
from dlrm.data.tabular.columns import Columns
from dlrm.data.tabular.encoder import Feature
from dlrm.data.tabular.numbers import Number
from dlrm.data.tabular.raw import RawTable
from dlrm.data.tabular.tokens import Tokens


def fit(
    table: RawTable,
    schema: Columns,
    train: NDArray[np.intp],
    clicks: NDArray[np.uint8],
    *,
    seed: int = 0,
) -> Iterator[tuple[Feature, dict[str, NDArray[np.float32]]]]:
    """Fit the features of a schema one by one.

    Args:
        table: All rows.
        schema: What becomes of the columns.
        train: (n,) numbers of the training rows, rising.
        clicks: (n,) their labels.
        seed: Of the folds of target means.

    Yields:
        A fitted feature, and by name those of its numbers that training rows get.

    """
    numbers: dict[str, Number] = {}
    for column in schema.used():
        if column.kind == "number":
            numbers[column.name] = Number.fit(column, table.column(column.name)[train])
            yield numbers[column.name], {}
        elif column.kind == "list":
            values = table.column(column.name)[train]
            yield Tokens.fit(column.name, column.separator, column.values, values), {}
        else:
            frame = frame_of(table, (column.name,), train)
            yield Category.fit((column.name,), column.values, frame, clicks, seed=seed)
    for cross in schema.crosses:
        buckets = tuple(numbers[name] for name in cross.columns if name in numbers)
        frame = frame_of(table, cross.columns, train)
        yield Category.fit(cross.columns, cross.values, frame, clicks, seed=seed, buckets=buckets)


def frame_of(table: RawTable, names: tuple[str, ...], rows: NDArray[np.intp]) -> pl.DataFrame:
    """Return some columns of some rows."""
    return pl.DataFrame([table.column(name)[rows].alias(name) for name in names])
