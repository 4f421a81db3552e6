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
    own = source.schema()
    fixed = own is not None and own.whole_log
    config.check(fixed=fixed, whole_log=fixed and config.features.unset)
    given = toml.load(Path(config.schema)) if config.schema else own
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
    for label in schema.labels:
        table.check_column(label, "label column")
        if table.types[label].is_nested():
            raise ConfigError(f"the label {label} holds {table.types[label]}, not one value")
    if schema.weight is not None:
        table.check_column(schema.weight, "weight column")
        if table.types[schema.weight].is_nested():
            held = table.types[schema.weight]
            raise ConfigError(f"the weight {schema.weight} holds {held}, not one number")
    for column in schema.used():
        table.check_column(column.name, "column of the schema")
        nested = isinstance(table.types[column.name], pl.List | pl.Array)
        if nested and column.kind not in LISTS:
            raise ConfigError(
                f"column {column.name} holds lists, but is of kind {column.kind} in the schema"
            )


def _with_settings(schema: Columns, config: PrepareConfig) -> Columns:
    """Return a schema with the labels and the weight that the settings name."""
    if config.label and config.label != schema.labels:
        labels, given = (", ".join(names) for names in (config.label, schema.labels))
        raise ConfigError(f"the label is {labels}, but {given} in the schema")
    if config.task is not None and config.task != schema.task:
        schema = replace(schema, task=config.task)
    if config.positive is not None:
        schema = replace(schema, positive=config.positive)
    if config.missing:
        schema = replace(schema, missing=tuple(dict.fromkeys((*schema.missing, *config.missing))))
    if config.only_empty_missing:
        schema = replace(schema, usual_missing=False)
    schema = _with_categories(schema, config.category)
    if config.weight is not None and config.weight != schema.weight:
        if schema.weight is not None:
            problem = f"the weight is {config.weight}, but {schema.weight} in the schema"
            raise ConfigError(problem)
        # It says how much a row counts, and is no feature.
        columns = tuple(column for column in schema.columns if column.name != config.weight)
        schema = replace(schema, weight=config.weight, columns=columns)
    return schema


def _with_categories(schema: Columns, names: tuple[str, ...]) -> Columns:
    known = {column.name: column for column in schema.columns}
    for name in names:
        if name not in known:
            raise unknown("column", name, known)
        if known[name].kind != "category":
            values = Values(min_count=MIN_COUNT)
            known[name] = Column(name=name, kind="category", values=values, why="asked for")
    return replace(schema, columns=tuple(known.values()))


def _numbered(schema: Columns, config: PrepareConfig) -> Columns:
    def numbered(column: Column) -> Column:
        if not column.values.whole_log:
            return column
        values = replace(
            column.values,
            ids=config.ids,
            min_count=config.min_count,
            modulo=config.max_rows_per_table or 0,
        )
        return replace(column, values=values)

    return replace(schema, columns=tuple(numbered(column) for column in schema.columns))
