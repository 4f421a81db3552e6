"""Categories that say the same as another one: each value of the one is a value of the other."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from dlrm.data.features.column import Column
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.vocabulary import distinct

LEAST = 20
"""Columns of so few values may agree by chance, and cost nothing."""


def without_duplicates(table: RawTable, columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Return the columns, where a category that only renames an earlier one is ignored.

    It would double every cross and every count of the other, and teach nothing.
    """
    seen: list[tuple[str, NDArray[np.int32]]] = []
    checked: list[Column] = []
    for column in columns:
        if column.kind == "category":
            # Codes by first appearance are equal exactly where the columns rename each other.
            groups, codes = distinct(table.texts(column.name))
            twin = next((name for name, known in seen if np.array_equal(codes, known)), None)
            if twin is not None and groups.height > LEAST:
                why = f"says the same as {twin}: each of its values is one of those"
                checked.append(replace(column, kind="ignore", why=why))
                continue
            seen.append((column.name, codes))
        checked.append(column)
    return tuple(checked)
