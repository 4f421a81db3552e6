"""What is known of each input of the model, as the manifest keeps it."""

from typing import Any

from dlrm.data.tabular.categories import Category
from dlrm.data.tabular.columns import Column
from dlrm.data.tabular.encoder import TableEncoder
from dlrm.data.tabular.raw import RawTable
from dlrm.data.tabular.texts import as_numbers, as_texts


def _missing(raw: RawTable, column: Column) -> int:
    """Return in how many rows a column is missing."""
    values = raw.column(column.name)
    if column.kind == "number":
        return as_numbers(values, time=column.time)[0].null_count()
    return (values if values.dtype.is_nested() else as_texts(values)).null_count()


def known_inputs(raw: RawTable, encoder: TableEncoder, train: int) -> list[dict[str, Any]]:
    """Return what is known of each input, with `train` training rows."""
    missing = {column.name: _missing(raw, column) for column in encoder.columns.used()}
    described = []
    for feature, made in encoder.inputs:
        lacking = max(missing[name] for name in feature.columns)
        rare = None
        single = isinstance(feature, Category) and not feature.values.hash_rows
        if made.rows is not None and single:
            rare = max(0, train - int(encoder.vocabulary(made.name).frame["count"].sum()))
        described.append(
            {
                "name": made.name,
                "kind": "dense" if made.rows is None else encoder.schema.feature(made.name).kind,
                "num_embeddings": made.rows,
                "missing": lacking,
                "missing_rate": lacking / raw.rows,
                "rare": rare,
            }
        )
    return described
