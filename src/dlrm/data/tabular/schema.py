"""The schema that a table is prepared with: given, said by its format, or inferred."""

from dataclasses import replace

import polars as pl

from dlrm.data.options import PrepareConfig
from dlrm.data.tabular.columns import Columns
from dlrm.data.tabular.infer import infer
from dlrm.data.tabular.raw import RawTable
from dlrm.data.tabular.source import Table
from dlrm.errors import ConfigError


def schema_of(
    table: Table,
    raw: RawTable,
    config: PrepareConfig,
    given: Columns | None,
    *,
    strict: bool = True,
) -> Columns:
    """Return the schema that a table is prepared with.

    Args:
        table: Where the rows come from.
        raw: The rows.
        config: How they are prepared.
        given: What the user says.
        strict: Whether a text among numbers is an error already.

    Raises:
        ConfigError: No label is named, or a column of the schema is not there.
        InputError: A column is numbers in nearly all rows; names the first other row.

    """
    given = given or table.schema()
    if given is None:
        if config.label is None:
            raise ConfigError(
                f"which column says whether it was a click? --label COLUMN; the columns are "
                f"{', '.join(raw.types)}"
            )
        given = infer(
            raw, config.label, config.positive, strict=strict and config.bad_rows != "skip"
        )
    if config.label is not None and config.label != given.label:
        raise ConfigError(f"the label is {config.label}, but {given.label} in the schema")
    if config.positive is not None:
        given = replace(given, positive=config.positive)
    raw.check_column(given.label, "label column")
    if raw.types[given.label].is_nested():
        raise ConfigError(f"the label {given.label} holds {raw.types[given.label]}, not one value")
    for column in given.used():
        raw.check_column(column.name, "column of the schema")
        if isinstance(raw.types[column.name], pl.List | pl.Array) and column.kind != "list":
            raise ConfigError(
                f"column {column.name} holds lists, but is of kind {column.kind} in the schema"
            )
    return config.features.apply(given)
