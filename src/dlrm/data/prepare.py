"""Any source -> a prepared dataset, out of core.

Three stages, each of which reads and writes in order: the log becomes blocks of codes (spill), the
distinct values of all blocks become vocabularies, feature by feature, and the blocks become
the arrays of the splits. Memory holds a few blocks and two features' distinct values.
"""

import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.progress import Progress

from dlrm.data import kernels
from dlrm.data.arrays import SplitWriter
from dlrm.data.bad_rows import BadRows, CountsBadRows
from dlrm.data.encoder import ENCODER_FILE, VOCABULARY_FOLDER, Encoder
from dlrm.data.options import PrepareConfig, Prepared
from dlrm.data.source import Source
from dlrm.data.spill import Spill, blocks
from dlrm.data.split import SPLITS, HasDays, Protocol, plan
from dlrm.data.staging import staged
from dlrm.data.store import FORMAT, MANIFEST_FILE, VERSION, Dataset, file_record
from dlrm.data.target import ENTRIES, check_disk, existing, remove_dataset
from dlrm.data.threads import in_order
from dlrm.data.vocabulary import IdOrder
from dlrm.errors import ConfigError, DatasetError
from dlrm.files import sync_file, sync_folder, write_json
from dlrm.schema import Schema
from dlrm.terminal import progress


def prepare(
    source: Source,
    out: Path | str,
    *,
    split: Protocol = "kaggle",
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    ids: IdOrder = "appearance",
    min_count: int = 1,
    max_rows_per_table: int | None = None,
    force: bool = False,
) -> Prepared:
    """Turn a source into a prepared dataset.

    Args:
        source: The raw log.
        out: Folder of the dataset; a finished one from the same log and options is used again.
        split: Protocol, see dlrm.data.split.
        fractions: Train, validation and test, as fractions or row counts.
        seed: Seed of the `random` split.
        ids: Ids by first appearance in the whole log, or by frequency.
        min_count: Values seen fewer times in the whole log share the row "other".
        max_rows_per_table: Values are taken modulo this number first.
        force: Replace a dataset that was prepared otherwise.

    Raises:
        InputError: The raw log has a bad row; nothing is left behind.
        DatasetError: The disk is too small, or `out` holds something else.
        ConfigError: An option has no meaning.

    """
    config = PrepareConfig(
        split=split,
        fractions=_three(fractions),
        seed=seed,
        ids=ids,
        min_count=min_count,
        max_rows_per_table=max_rows_per_table,
    )
    return prepare_with(source, Path(out), config, force=force)


def _three(shares: Sequence[float]) -> tuple[float, float, float]:
    """Return three shares as a tuple."""
    if len(shares) != len(SPLITS):
        raise ConfigError(f"fractions are {list(shares)}, expected train, validation and test")
    return shares[0], shares[1], shares[2]


def prepare_with(
    source: Source, out: Path, config: PrepareConfig, *, force: bool = False
) -> Prepared:
    """Turn a source into a prepared dataset, as `prepare` does."""
    config.check_for_log()
    options, fingerprint = config.options(), source.fingerprint()
    if (found := existing(out, fingerprint, options, force=force)) is not None:
        return Prepared(found, reused=True)
    check_disk(source, out)
    with staged(out, ENTRIES) as folder, progress() as bar:
        spill = Spill(folder / "spill", source, config.max_rows_per_table)
        _read(source, spill, bar)
        vocabularies = _build(source, spill, folder, config, bar)
        encoder = Encoder(
            source=source_name(source),
            dense=tuple(source.dense),
            categorical=tuple(source.categorical),
            label=source.label,
            rows=tuple(rows for rows, _ in vocabularies.values()),
            max_rows_per_table=config.max_rows_per_table,
            folder=folder,
        )
        write_json(folder / ENCODER_FILE, encoder.to_dict())
        splits = _write_splits(source, spill, encoder.schema, config, folder, bar)
        shutil.rmtree(folder / "spill")
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "source": encoder.source,
            "rows": spill.rows,
            "unused_rows": spill.rows - sum(each["rows"] for each in splits.values()),
            "bad_rows": _bad_rows(source).to_dict(),
            "schema": encoder.schema.to_dict(),
            "fingerprint": fingerprint,
            "options": options,
            "splits": splits,
            "features": _features(source, spill, vocabularies),
            "files": _files(folder, source),
        }
        write_json(folder / MANIFEST_FILE, manifest)
        if out.exists():
            remove_dataset(out)
    return Prepared(Dataset.open(out), reused=False)


def source_name(source: Source) -> str:
    """Return the name of a source, as the catalogue has it."""
    return source.fingerprint().get("source", type(source).__name__)


def _read(source: Source, spill: Spill, bar: Progress) -> None:
    """First stage: the log becomes blocks of codes."""
    task = bar.add_task("Reading rows", total=source.rows())
    with closing(spill.fill(blocks(source.read()))) as written:
        for rows in written:
            bar.advance(task, rows)
    bar.update(task, total=spill.rows, completed=spill.rows)
    if not spill.rows:
        bad = _bad_rows(source)
        why = f": all {bad.total} were bad, the first is {bad.first[0]}" if bad.total else ""
        raise DatasetError(f"the log has no good row{why}")


def _build(
    source: Source, spill: Spill, folder: Path, config: PrepareConfig, bar: Progress
) -> dict[str, tuple[int, int]]:
    """Second stage: vocabularies. Returns rows and rare samples of each table."""

    def one(name: str) -> tuple[int, int]:
        vocabulary = spill.build(name, config.ids, config.min_count)
        vocabulary.save(folder / VOCABULARY_FOLDER)
        return vocabulary.num_embeddings, spill.rows - int(vocabulary.frame["count"].sum())

    (folder / VOCABULARY_FOLDER).mkdir()
    names = (name for name in bar.track(source.categorical, description="Building vocabularies"))
    # Polars alone uses all cores for one feature, and more memory than the kernels do for two.
    built = in_order(one, names, 2 if kernels.available() else 1)
    built = dict(zip(source.categorical, built, strict=True))
    spill.drop_values()
    return built


def _write_splits(
    source: Source,
    spill: Spill,
    schema: Schema,
    config: PrepareConfig,
    folder: Path,
    bar: Progress,
) -> dict[str, dict[str, Any]]:
    """Third stage: the blocks become the arrays of the splits. Returns their manifest."""
    days = source.day_rows if isinstance(source, HasDays) else ()
    where = plan(
        config.protocol("kaggle"),
        spill.rows,
        fractions=config.fractions,
        seed=config.seed,
        days=days,
    )
    task, start = bar.add_task("Writing splits", total=spill.rows), 0
    every = (block for block in range(len(spill.block_rows)))
    with (
        SplitWriter(folder, SPLITS, schema, truth=spill.truth) as writer,
        closing(in_order(spill.read, every)) as read,
    ):
        for block, arrays in enumerate(read):
            height = spill.block_rows[block]
            for split, rows in where.pieces(start, start + height):
                writer.write(split, arrays, rows)
            spill.drop(block)
            start += height
            bar.advance(task, height)
        return writer.finish()


def _features(
    source: Source, spill: Spill, vocabularies: dict[str, tuple[int, int]]
) -> list[dict[str, Any]]:
    """Return what is known of each column."""
    features: list[dict[str, Any]] = []
    for name, missing in spill.missing.items():
        rows, rare = vocabularies.get(name, (None, None))
        features.append(
            {
                "name": name,
                "kind": "dense" if name in source.dense else "one_hot",
                "num_embeddings": rows,
                "missing": missing,
                "missing_rate": missing / spill.rows,
                "rare": rare,
            }
        )
    return features


def _files(folder: Path, source: Source) -> dict[str, dict[str, Any]]:
    """Sync the files that are no arrays; return their entries in the manifest."""
    names = [f"{VOCABULARY_FOLDER}/{name}.parquet" for name in source.categorical]
    for name in names:
        sync_file(folder / name)
    sync_folder(folder / VOCABULARY_FOLDER)
    return {name: file_record(folder / name) for name in (ENCODER_FILE, *names)}


def _bad_rows(source: Source) -> BadRows:
    """Return the rows that the source left out."""
    return source.bad if isinstance(source, CountsBadRows) else BadRows()
