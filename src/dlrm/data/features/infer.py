"""What the columns of a table are, guessed from their values; each guess says why.

Numbers whose order means nothing (codes, ids) look like numbers; what tells them apart is written
down here as rules, and the user reads the reason and may say otherwise in the schema.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dlrm.data.features.column import Column, Values
from dlrm.data.features.columns import Columns
from dlrm.data.features.infer_numbers import (
    MIN_COUNT,
    category_column,
    number_column,
    within_components,
)
from dlrm.data.features.infer_texts import list_column, text_column
from dlrm.data.features.number_text import TRUTHS
from dlrm.data.features.texts import is_text
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.vocabulary import distinct
from dlrm.errors import ConfigError, unknown
from dlrm.schema import Task

MOST_FLAGS = 64
"""More columns of two values than these are numbers: as categories they would have a vector each,
and interactions are as many as pairs of vectors."""
FEW_VALUES = 20
"""Columns of so few values may agree by chance, and cost nothing."""


def infer(
    table: RawTable,
    labels: Sequence[str],
    positive: str | None = None,
    *,
    task: Task = "classification",
    weight: str | None = None,
    strict: bool = True,
    categories: Collection[str] = (),
    missing: tuple[str, ...] = (),
    usual_missing: bool = True,
) -> Columns:
    """Return the schema of a table.

    Where it is `strict`, a text in a column of numbers is an error; otherwise the reason says it.
    `categories` are such whatever their values look like; texts that are `missing` are so in every
    column, those that usually mean it in numbers, times and labels.

    Raises:
        ConfigError: There is no such label, or nothing to learn from.
        InputError: A column is numbers in nearly all rows; names the first other row.

    """
    for label in labels:
        table.check_column(label, "label column")
    if weight is not None:
        table.check_column(weight, "weight column")
    names = [name for name in table.types if name not in (*labels, weight)]
    if not names:
        beside = "" if weight is None else f" and the weight {weight}"
        raise ConfigError(f"the table has no column but the label {', '.join(labels)}{beside}")
    for name in categories:
        if name not in names:
            raise unknown("column", name, names)
    table = table.with_missing(missing)
    # In a table whose columns are all texts, nobody said that one is.
    declared = any(table.types[name] != pl.String for name in names)
    columns = tuple(
        Column(name=name, kind="category", values=Values(min_count=MIN_COUNT), why="asked for")
        if name in categories
        else _column(table, name, strict=strict, usual_missing=usual_missing, declared=declared)
        for name in names
    )
    return Columns(
        labels=tuple(labels),
        task=task,
        positive=positive,
        weight=weight,
        missing=missing,
        usual_missing=usual_missing,
        columns=without_duplicates(table, within_components(_many_flags(table, columns))),
    )


def _column(
    table: RawTable, name: str, *, strict: bool, usual_missing: bool, declared: bool
) -> Column:
    values = table.column(name).alias("")
    dtype = values.dtype
    if isinstance(dtype, pl.Categorical | pl.Enum | pl.Boolean):
        why = "true or false" if dtype == pl.Boolean else "categories by their type"
        return category_column(name, table.texts(name), why)
    if dtype.is_nested():
        return list_column(name, values.explode(empty_as_null=True), "a list in the file", "|")
    if is_text(values):
        column, row, problem = text_column(
            table, name, usual_missing=usual_missing, declared=declared
        )
        if problem:
            error = table.error(row, name, problem)
            if strict:
                raise error
            column = replace(column, why=f"{column.why}; BUT {error}")
        return column
    if not (dtype.is_temporal() or dtype.is_numeric() or dtype == pl.Null):
        return Column(name=name, kind="ignore", why=f"{dtype} is neither text nor number")
    numbers, _ = table.numbers(name)
    time = dtype.is_temporal() and dtype != pl.Duration
    return number_column(name, numbers, values, time=time)


def _many_flags(table: RawTable, columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Return the columns, where categories of 0 and 1 are numbers if there are many of them."""
    categories = [column.name for column in columns if column.kind == "category"]
    if len(categories) <= MOST_FLAGS:
        return columns
    flags: dict[str, str] = {}
    for name in categories:
        values = set(table.texts(name).drop_nulls().unique())
        if values <= {"0", "1"}:
            flags[name] = ""
        elif values <= {"true", "false"}:
            flags[name] = "" if table.types[name] == pl.Boolean else TRUTHS
    if len(flags) <= MOST_FLAGS:
        return columns
    why = f"one of {len(flags):,} columns of two values, which are not given a vector each"
    return tuple(
        Column(name=column.name, kind="number", scale="none", format=flags[column.name], why=why)
        if column.name in flags
        else column
        for column in columns
    )


def without_duplicates(table: RawTable, columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Return the columns, where a category that only renames an earlier one is ignored.

    It would double every cross and every count of the other, and teach nothing.
    """
    kept_codes: list[tuple[str, NDArray[np.int32]]] = []
    checked: list[Column] = []
    for column in columns:
        if column.kind == "category":
            # Codes by first appearance are equal exactly where the columns rename each other.
            groups, codes = distinct(table.texts(column.name))
            twin = next((name for name, known in kept_codes if np.array_equal(codes, known)), None)
            if twin is not None and groups.height > FEW_VALUES:
                why = f"says the same as {twin}: each of its values is one of those"
                checked.append(replace(column, kind="ignore", why=why))
                continue
            kept_codes.append((column.name, codes))
        checked.append(column)
    return tuple(checked)
