"""Any table -> a prepared dataset.

The raw rows become Parquet; the schema is given, or inferred from them; rows are divided into
splits; features are fitted on the training rows alone, one column at a time; and block by block the
rows become the arrays of the splits.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.progress import Progress

from dlrm.data.arrays import SplitWriter
from dlrm.data.bad_rows import BadRows
from dlrm.data.encoder import ENCODER_FILE
from dlrm.data.options import PrepareConfig, Prepared
from dlrm.data.split import SPLITS, plan
from dlrm.data.staging import staged
from dlrm.data.store import FORMAT, MANIFEST_FILE, Dataset, file_record, version_of
from dlrm.data.tabular import toml
from dlrm.data.tabular.categories import Category
from dlrm.data.tabular.columns import Column, Columns
from dlrm.data.tabular.encoder import Feature, TableEncoder, wrong_numbers
from dlrm.data.tabular.fit import fit
from dlrm.data.tabular.infer import infer
from dlrm.data.tabular.raw import RawTable
from dlrm.data.tabular.show import described, show
from dlrm.data.tabular.source import Table
from dlrm.data.tabular.texts import as_numbers, as_texts, positives, recognised
from dlrm.data.target import ENTRIES, check_space, existing, remove_dataset
from dlrm.errors import ConfigError, DatasetError
from dlrm.files import write_json
from dlrm.terminal import progress

TRUTH = "truth"
_UNUSED = -1
_MOST_VALUES = 1000


def prepare_table(
    table: Table,
    out: Path,
    config: PrepareConfig,
    *,
    force: bool = False,
    quiet: bool = False,
) -> Prepared:
    """Turn a table into a prepared dataset.

    Args:
        table: The raw table.
        out: Folder of the dataset; a finished one from the same table and options is used again.
        config: How.
        force: Replace a dataset that was prepared otherwise.
        quiet: Do not print what the columns were taken for.

    Raises:
        InputError: A row is not what it should be; names file, row and column.
        ConfigError: The label or the schema does not fit the table.
        DatasetError: The disk is too small, or `out` holds something else.

    """
    given = toml.load(Path(config.schema)) if config.schema else None
    options = {**config.table_options(), "schema": toml.to_dict(given) if given else None}
    fingerprint = table.fingerprint()
    if (found := existing(out, fingerprint, options, force=force)) is not None:
        return Prepared(found, reused=True)
    check_space(table.rows(), 400 * table.rows(), out)
    with staged(out, ENTRIES) as folder, progress() as bar:
        (folder / "spill").mkdir()
        raw = _read(table, folder / "spill", bar)
        schema = schema_of(table, raw, config, given)
        click, label_values = _label(raw, schema)
        clicks, bad, bad_rows = _check(raw, schema, click, label_values, config)
        where = divide(raw, bad, config)
        train = np.flatnonzero(where == SPLITS.index("train"))
        if not len(train):
            raise DatasetError("no row is left to train on; see prepare.fractions")
        if config.features.select == "auto":
            from dlrm.data.tabular.auto import choose

            schema = choose(raw, schema, train, clicks[train], seed=config.seed)
        if not quiet:
            show(schema)
        features: list[Feature] = []
        training: dict[tuple[int, str], NDArray[np.float32]] = {}
        total = len(schema.used()) + len(schema.crosses)
        task = bar.add_task("Fitting features", total=total)
        for feature, own in fit(raw, schema, train, clicks[train], seed=config.seed):
            training |= {(len(features), name): values for name, values in own.items()}
            features.append(feature)
            bar.advance(task)
        encoder = TableEncoder(
            source=table.kind,
            columns=schema,
            click=click,
            label_values=label_values,
            features=tuple(features),
            layout=table.layout(),
            folder=folder,
        )
        encoder.write(folder)
        splits = _write_splits(raw, encoder, training, where, clicks, folder, bar)
        missing = {column.name: _missing(raw, column) for column in schema.used()}
        shutil.rmtree(folder / "spill")
        manifest = {
            "format": FORMAT,
            "version": version_of(encoder.schema),
            "source": table.kind,
            "rows": raw.rows - bad_rows.total,
            "unused_rows": int((where == _UNUSED).sum()) - bad_rows.total,
            "bad_rows": bad_rows.to_dict(),
            "schema": encoder.schema.to_dict(),
            "fingerprint": fingerprint,
            "options": options,
            "splits": splits,
            "features": _features(encoder, missing, raw.rows, len(train)),
            "columns": described(schema),
            "files": {
                name: file_record(folder / name) for name in (ENCODER_FILE, *encoder.files())
            },
        }
        write_json(folder / MANIFEST_FILE, manifest)
        if out.exists():
            remove_dataset(out)
    return Prepared(Dataset.open(out), reused=False)


def _read(table: Table, folder: Path, bar: Progress) -> RawTable:
    task = bar.add_task("Reading rows", total=table.rows())
    raw = table.write(folder, lambda rows: bar.advance(task, rows))
    bar.update(task, total=raw.rows, completed=raw.rows)
    if not raw.rows:
        raise DatasetError("the table has no rows")
    return raw


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


def train_rows(
    raw: RawTable, schema: Columns, config: PrepareConfig
) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Return the numbers of the training rows, rising, and their labels."""
    click, values = _label(raw, schema)
    clicks, bad, _ = _check(raw, schema, click, values, config)
    train = np.flatnonzero(divide(raw, bad, config) == SPLITS.index("train"))
    return train, clicks[train]


def _label(raw: RawTable, schema: Columns) -> tuple[str, tuple[str, ...]]:
    """Return what means a click, and the values of the label."""
    labels = as_texts(raw.column(schema.label)).drop_nulls().unique(maintain_order=True)
    values = labels.to_list()
    click = recognised(values, schema.positive, schema.label)
    return click, tuple(values) if len(values) <= _MOST_VALUES else ()


def _check(
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


def divide(raw: RawTable, bad: NDArray[np.bool_], config: PrepareConfig) -> NDArray[np.int8]:
    """Return the split of each row, a place in SPLITS; -1 for bad rows and for unused ones."""
    where = np.full(raw.rows, _UNUSED, np.int8)
    named = np.concatenate(
        [
            np.full(part.rows, SPLITS.index(part.split) if part.split else _UNUSED)
            for part in raw.parts
        ]
    )
    good = np.flatnonzero(~bad)
    if (named == _UNUSED).all():
        days = _days(raw, bad)
        _assign(where, good, config, config.fractions, days)
        return where
    where[good] = named[good]
    if not (named == SPLITS.index("validation")).any():
        # The files have no validation part: it comes out of the training file.
        train = good[named[good] == SPLITS.index("train")]
        held = config.fractions[1] / max(config.fractions[0] + config.fractions[1], 1e-9)
        _assign(where, train, config, (1 - held, held, 0.0), ())
    return where


def _assign(
    where: NDArray[np.int8],
    rows: NDArray[np.intp],
    config: PrepareConfig,
    fractions: Sequence[float],
    days: Sequence[int],
) -> None:
    protocol = config.protocol("random")
    planned = plan(protocol, len(rows), fractions=fractions, seed=config.seed, days=days)
    for name, piece in planned.pieces(0, len(rows)):
        where[rows[piece]] = SPLITS.index(name)
    used = np.zeros(len(rows), np.bool_)
    for _, piece in planned.pieces(0, len(rows)):
        used[piece] = True
    where[rows[~used]] = _UNUSED


def _days(raw: RawTable, bad: NDArray[np.bool_]) -> list[int]:
    """Return the good rows of each file."""
    days, start = [], 0
    for _, parts in groupby(raw.parts, key=lambda part: str(part.origin)):
        rows = sum(part.rows for part in parts)
        days.append(int((~bad[start : start + rows]).sum()))
        start += rows
    return days


def _write_splits(
    raw: RawTable,
    encoder: TableEncoder,
    training: dict[tuple[int, str], NDArray[np.float32]],
    where: NDArray[np.int8],
    clicks: NDArray[np.uint8],
    folder: Path,
    bar: Progress,
) -> dict[str, dict[str, Any]]:
    task, start = bar.add_task("Writing splits", total=raw.rows), 0
    # Each training row's place among them.
    rank = np.cumsum(where == SPLITS.index("train")) - 1
    numbers = [
        (number, made.name)
        for number, feature in enumerate(encoder.features)
        for made in feature.inputs()
        if made.rows is None
    ]
    overridden = {numbers.index(place): values for place, values in training.items()}
    truth = TRUTH in raw.types and encoder.source not in ("table", "libsvm")
    names = [*encoder.needed, *([TRUTH] if truth else [])]
    shape = len(encoder.dense), len(encoder.categorical)
    with SplitWriter(folder, SPLITS, *shape, truth=truth, bags=encoder.bags) as writer:
        for block in raw.blocks(names):
            rows = slice(start, start + block.height)
            encoded = encoder.encode(block)
            mine = where[rows] == SPLITS.index("train")
            for position, values in overridden.items():
                encoded.dense[mine, position] = values[rank[rows][mine]]
            arrays: dict[str, NDArray[Any]] = {
                "dense": encoded.dense,
                "ids": encoded.ids,
                "labels": clicks[rows],
            }
            if encoded.offsets is not None:
                arrays["offsets"] = encoded.offsets
            if truth:
                arrays[TRUTH] = block[TRUTH].cast(pl.Float32).to_numpy()
            for number, split in enumerate(SPLITS):
                writer.write(split, arrays, np.flatnonzero(where[rows] == number))
            start += block.height
            bar.advance(task, block.height)
        return writer.finish()


def _missing(raw: RawTable, column: Column) -> int:
    """Return in how many rows a column is missing."""
    values = raw.column(column.name)
    if column.kind == "number":
        return as_numbers(values, time=column.time)[0].null_count()
    return (values if values.dtype.is_nested() else as_texts(values)).null_count()


def _features(
    encoder: TableEncoder, missing: dict[str, int], rows: int, train: int
) -> list[dict[str, Any]]:
    """Return what is known of each input of the model."""
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
                "kind": "dense" if made.rows is None else "categorical",
                "rows": made.rows,
                "missing": lacking,
                "missing_rate": lacking / rows,
                "rare": rare,
            }
        )
    return described
