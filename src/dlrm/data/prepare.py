"""Any source -> a prepared dataset.

Features are fitted to the rows (`dlrm.data.fitting`), and block by block the rows become the arrays
of the splits.
"""

import shutil
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import Progress

from dlrm.data.arrays import SplitWriter
from dlrm.data.features import toml
from dlrm.data.features.show import described
from dlrm.data.features.table_schema import known_schema
from dlrm.data.fitting import Fitted, Known, apply, fit_rows
from dlrm.data.options import PrepareConfig
from dlrm.data.sources.source import Source, has_fixed_format
from dlrm.data.split import SPLITS
from dlrm.data.store import (
    FEATURES_FILE,
    FORMAT,
    MANIFEST_FILE,
    VERSION,
    VOCABULARY_FOLDER,
    Dataset,
)
from dlrm.data.target import ENTRIES, check_replaceable, check_space, disk_bytes, existing, staged
from dlrm.data.threads import check_pool
from dlrm.file_records import file_record
from dlrm.files import sync_folder
from dlrm.json_file import write_sealed
from dlrm.terminal import progress, say


@dataclass(frozen=True, slots=True)
class Prepared:
    """The dataset of `prepare`, written now or found from before."""

    dataset: Dataset
    reused: bool
    """Whether a finished dataset was found and nothing had to be done."""


def prepare(
    source: Source,
    out: Path | str,
    config: PrepareConfig | None = None,
    *,
    known: Known | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Prepared:
    """Turn a source into a prepared dataset.

    Args:
        source: The raw rows.
        out: Folder of the dataset; a finished one from the same rows and settings is used again.
        config: How.
        known: Features of a run that encode the rows; None to fit some to them.
        force: Replace a dataset that was prepared otherwise.
        quiet: Do not print what the columns were taken for.

    Raises:
        InputError: A row is not what it should be; names file, line and column. Nothing is left.
        ConfigError: A setting has no meaning, or the label or the schema does not fit the rows.
        DatasetError: The disk is too small, or `out` holds something else.

    """
    check_pool()
    # What is replaced is a folder, not a link to it.
    out, config = Path(out), config or PrepareConfig()
    out = out.resolve() if out.is_symlink() else out
    schema = known.features.columns if known else known_schema(source, config)
    options, fingerprint = options_of(source, config, known), source.fingerprint()
    if (dataset := existing(out, fingerprint, options, force=force)) is not None:
        return Prepared(dataset, reused=True)
    check_space(source.rows(), disk_bytes(source.rows(), schema), out)
    with staged(out, ENTRIES) as folder, progress() as bar:
        if known is not None:
            fitted = apply(known, source, config, folder, bar)
            say(fitted.notes)
        else:
            fitted = fit_rows(source, schema, config, folder, bar, quiet=quiet)
        features = fitted.features
        features.save(folder)
        splits = _write_splits(fitted, folder, bar)
        inputs = fitted.inputs()
        shutil.rmtree(folder / "spill")
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "source": features.source,
            "rows": fitted.rows,
            "counted_rows": fitted.counted_rows,
            "unused_rows": fitted.rows - sum(split["rows"] for split in splits.values()),
            "bad_rows": fitted.bad_rows.to_dict(),
            "schema": features.schema.to_dict(),
            "fingerprint": fingerprint,
            "options": options,
            "division": list(fitted.notes),
            "splits": splits,
            "features": inputs,
            # Where the format says it all, nothing was taken for anything.
            "columns": [] if features.columns.whole_log else described(features.columns),
            "files": {
                name: file_record(folder / name) for name in (FEATURES_FILE, *features.files)
            },
        }
        sync_folder(folder / VOCABULARY_FOLDER)
        write_sealed(folder / MANIFEST_FILE, manifest)
        check_replaceable(out)
    return Prepared(Dataset.open(out), reused=False)


def options_of(source: Source, config: PrepareConfig, known: Known | None = None) -> dict[str, Any]:
    """Return what changes a dataset beside its rows, JSON-ready."""
    fixed = has_fixed_format(source)
    given = toml.to_dict(toml.load(Path(config.schema))) if config.schema else None
    return config.options(fixed=fixed, schema=given) | (known.fingerprint() if known else {})


def _write_splits(fitted: Fitted, folder: Path, bar: Progress) -> dict[str, dict[str, Any]]:
    task = bar.add_task("Writing splits", total=fitted.rows)
    schema, weight = fitted.features.schema, fitted.features.columns.weight
    weights = weight is not None
    with (
        SplitWriter(folder, SPLITS, schema, weights=weights, truth=fitted.truth) as writer,
        closing(fitted.blocks()) as blocks,
    ):
        for block in blocks:
            for split, rows in block.pieces:
                writer.write(split, block.encoded, rows)
            bar.advance(task, len(block.encoded))
        return writer.finish()
