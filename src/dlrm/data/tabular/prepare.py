"""Any table -> a prepared dataset.

The raw rows become Parquet; the schema is given, or inferred from them; rows are divided into
splits; features are fitted on the training rows alone, one column at a time; and block by block the
rows become the arrays of the splits.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.progress import Progress

from dlrm.data.arrays import SplitWriter
from dlrm.data.encoder import ENCODER_FILE
from dlrm.data.options import PrepareConfig, Prepared
from dlrm.data.split import SPLITS
from dlrm.data.staging import staged
from dlrm.data.store import FORMAT, MANIFEST_FILE, VERSION, Dataset, file_record
from dlrm.data.tabular import toml
from dlrm.data.tabular.columns import Columns
from dlrm.data.tabular.division import UNUSED, divide
from dlrm.data.tabular.encoder import Feature, TableEncoder
from dlrm.data.tabular.fit import fit
from dlrm.data.tabular.inputs import known_inputs
from dlrm.data.tabular.labels import check, label_of
from dlrm.data.tabular.raw import RawTable
from dlrm.data.tabular.schema import schema_of
from dlrm.data.tabular.show import described, show
from dlrm.data.tabular.source import Table
from dlrm.data.target import ENTRIES, check_space, existing, remove_dataset
from dlrm.errors import DatasetError
from dlrm.files import write_json
from dlrm.terminal import progress

TRUTH = "truth"


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
        click, label_values = label_of(raw, schema)
        clicks, bad, bad_rows = check(raw, schema, click, label_values, config)
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
        inputs = known_inputs(raw, encoder, len(train))
        shutil.rmtree(folder / "spill")
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "source": table.kind,
            "rows": raw.rows - bad_rows.total,
            "counted_rows": len(train),
            "unused_rows": int((where == UNUSED).sum()) - bad_rows.total,
            "bad_rows": bad_rows.to_dict(),
            "schema": encoder.schema.to_dict(),
            "fingerprint": fingerprint,
            "options": options,
            "splits": splits,
            "features": inputs,
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


def train_rows(
    raw: RawTable, schema: Columns, config: PrepareConfig
) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
    """Return the numbers of the training rows, rising, and their labels."""
    click, values = label_of(raw, schema)
    clicks, bad, _ = check(raw, schema, click, values, config)
    train = np.flatnonzero(divide(raw, bad, config) == SPLITS.index("train"))
    return train, clicks[train]


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
    with SplitWriter(folder, SPLITS, encoder.schema, truth=truth) as writer:
        for block in raw.blocks(names):
            rows = slice(start, start + block.height)
            encoded = encoder.encode(block)
            mine = where[rows] == SPLITS.index("train")
            for position, values in overridden.items():
                encoded.dense[mine, position] = values[rank[rows][mine]]
            encoded = replace(
                encoded,
                labels=clicks[rows].reshape(-1, 1),
                truth=block[TRUTH].cast(pl.Float32).to_numpy() if truth else None,
            )
            for number, split in enumerate(SPLITS):
                writer.write(split, encoded, np.flatnonzero(where[rows] == number))
            start += block.height
            bar.advance(task, block.height)
        return writer.finish()
