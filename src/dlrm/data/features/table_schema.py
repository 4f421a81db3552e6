"""The schema that raw rows are prepared with: given, said by their format, or inferred."""

from dataclasses import replace
from pathlib import Path

import polars as pl

from dlrm.data.features import toml
from dlrm.data.features.column import LISTS, Column, Values
from dlrm.data.features.columns import Columns
from dlrm.data.features.infer import infer
from dlrm.data.features.infer_numbers import MIN_COUNT
from dlrm.data.options import PrepareConfig
from dlrm.data.sources.raw_table import RawTable
from dlrm.data.sources.source import Source
from dlrm.errors import ConfigError, unknown


def known_schema(source: Source, config: PrepareConfig) -> Columns | None:
    """Return the schema before any row is read; None where it must be inferred.

    Raises:
        ConfigError: A setting has no meaning for this source, or does not fit the schema.
        InputError: The file of the schema is missing or no TOML.

    """
    format_schema = source.schema()
    fixed = format_schema is not None and format_schema.whole_log
    config.check(fixed=fixed, whole_log=fixed and config.features.unset)
    given = toml.load(Path(config.schema)) if config.schema else format_schema
    if given is None:
        return None
    if fixed:
        given = _numbered(given, config)
    return config.features.apply(_with_settings(given, config))


def inferred_schema(table: RawTable, config: PrepareConfig, *, strict: bool = True) -> Columns:
    """Return the schema of rows whose format says nothing.

    Raises:
        ConfigError: No label is named, or a column is not there.
        InputError: A column is numbers in nearly all rows; names the first other row.

    """
    if not config.label:
        what = "is to predict" if config.task == "regression" else "says whether it was a click"
        raise ConfigError(
            f"which column {what}? --label COLUMN; the columns are {', '.join(table.types)}"
        )
    schema = infer(
        table,
        config.label,
        config.positive,
        task=config.task or "classification",
        weight=config.weight,
        strict=strict and config.bad_rows != "skip",
        categories=config.category,
        missing=config.missing,
        usual_missing=not config.only_empty_missing,
    )
    return config.features.apply(schema)


def check_columns(schema: Columns, table: RawTable) -> None:
    """Raise a ConfigError unless a table has the columns of a schema, of the right kinds."""
    for name, what, one in (
        *((label, "label", "value") for label in schema.labels),
        *([(schema.weight, "weight", "number")] if schema.weight is not None else []),
    ):
        table.check_column(name, f"{what} column")
        if table.types[name].is_nested():
            raise ConfigError(f"the {what} {name} holds {table.types[name]}, not one {one}")
    for column in schema.used():
        table.check_column(column.name, "column of the schema")
        if isinstance(table.types[column.name], pl.List | pl.Array) and column.kind not in LISTS:
            raise ConfigError(
                f"column {column.name} holds lists, but is of kind {column.kind} in the schema"
            )


def _with_settings(schema: Columns, config: PrepareConfig) -> Columns:
    """Return a schema with the labels, the weight and the categories that the settings name."""
    if config.label and config.label != schema.labels:
        labels, given = (", ".join(names) for names in (config.label, schema.labels))
        raise ConfigError(f"the label is {labels}, but {given} in the schema")
    if config.weight is not None and schema.weight not in (None, config.weight):
        raise ConfigError(f"the weight is {config.weight}, but {schema.weight} in the schema")
    columns = {column.name: column for column in schema.columns}
    for name in config.category:
        if name not in columns:
            raise unknown("column", name, columns)
        if columns[name].kind != "category":
            values = Values(min_count=MIN_COUNT)
            columns[name] = Column(name=name, kind="category", values=values, why="asked for")
    if config.weight is not None:
        # It says how much a row counts, and is no feature.
        columns.pop(config.weight, None)
    return replace(
        schema,
        task=config.task or schema.task,
        positive=schema.positive if config.positive is None else config.positive,
        weight=config.weight or schema.weight,
        missing=tuple(dict.fromkeys((*schema.missing, *config.missing))),
        usual_missing=schema.usual_missing and not config.only_empty_missing,
        columns=tuple(columns.values()),
    )


def _numbered(schema: Columns, config: PrepareConfig) -> Columns:
    """Return the schema of a log whose values get their ids as the settings say."""
    asked = {
        "ids": config.ids,
        "min_count": config.min_count,
        "modulo": config.max_rows_per_table or 0,
    }
    columns = (
        replace(column, values=replace(column.values, **asked))
        if column.values.whole_log
        else column
        for column in schema.columns
    )
    return replace(schema, columns=tuple(columns))
