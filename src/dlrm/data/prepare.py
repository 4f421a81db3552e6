"""Any source -> a prepared dataset, out of core.

Three stages, each of which reads and writes in order: the log becomes blocks of codes (spill), the
distinct values of all blocks become vocabularies, one feature at a time, and the blocks become
the arrays of the splits. Memory holds a few blocks and one feature's distinct values.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from dlrm.data.arrays import ArrayWriter
from dlrm.data.bad_rows import BadRows, CountsBadRows
from dlrm.data.encoder import ENCODER_FILE, VOCABULARY_FOLDER, Encoder
from dlrm.data.source import Source
from dlrm.data.spill import TRUTH, Spill, blocks
from dlrm.data.split import PROTOCOLS, SPLITS, Plan, Protocol, plan, sizes
from dlrm.data.staging import free_bytes, staged, sync
from dlrm.data.store import (
    FORMAT,
    MANIFEST_FILE,
    VERSION,
    Dataset,
    file_record,
    read_manifest,
)
from dlrm.data.vocabulary import ID_ORDERS, IdOrder, Vocabulary
from dlrm.errors import ConfigError, DatasetError, unknown
from dlrm.terminal import human_bytes, progress

FRACTIONS = (0.8, 0.1, 0.1)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare` made or found."""

    dataset: Dataset
    reused: bool
    """Whether a finished dataset was found and nothing had to be done."""


def prepare(
    source: Source,
    out: Path | str,
    *,
    split: Protocol = "kaggle",
    fractions: Sequence[float] = FRACTIONS,
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
        fractions: Train, validation and test as fractions or row counts (not for `kaggle`).
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
    out = Path(out)
    options = prepare_options(split, fractions, seed, ids, min_count, max_rows_per_table)
    fingerprint = source.fingerprint()
    if (found := _existing(out, fingerprint, options, force)) is not None:
        return Prepared(found, reused=True)
    _check_disk(source, out)
    with staged(out) as folder, progress() as bar:
        spill = Spill(folder / "spill", source, max_rows_per_table)
        _read(source, spill, bar)
        if not spill.rows:
            raise DatasetError(f"the log has no good row{_skipped(source)}")
        where = plan(split, spill.rows, fractions=fractions, seed=seed)
        vocabularies = _build(source, spill, folder, ids, min_count, bar)
        encoder = _encoder(source, vocabularies, max_rows_per_table, folder)
        splits = _write_splits(source, spill, where, folder, bar)
        shutil.rmtree(folder / "spill")
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "source": encoder.source,
            "rows": spill.rows,
            "unused_rows": spill.rows - sum(split["rows"] for split in splits.values()),
            "bad_rows": _bad_rows(source).to_dict(),
            "schema": encoder.schema.to_dict(),
            "fingerprint": fingerprint,
            "options": options,
            "splits": splits,
            "features": _features(source, spill, vocabularies),
            "files": _files(folder, source),
        }
        _write_json(folder / MANIFEST_FILE, manifest)
        if out.exists() and any(out.iterdir()):
            _remove_dataset(out)
    return Prepared(Dataset.open(out), reused=False)


def source_name(source: Source) -> str:
    """Return the name of a source, as the catalogue has it."""
    return source.fingerprint().get("source", type(source).__name__)


def prepare_options(
    split: str,
    fractions: Sequence[float],
    seed: int,
    ids: str,
    min_count: int,
    max_rows_per_table: int | None,
) -> dict[str, Any]:
    """Check the options and return those that change the result."""
    if split not in PROTOCOLS:
        raise unknown("split", split, PROTOCOLS)
    if ids not in ID_ORDERS:
        raise unknown("order of ids", ids, ID_ORDERS)
    if min_count < 1:
        raise ConfigError(f"min_count is {min_count}, expected 1 or more")
    if max_rows_per_table is not None and max_rows_per_table < 1:
        raise ConfigError(f"max_rows_per_table is {max_rows_per_table}, expected 1 or more")
    if split != "kaggle":
        # Row counts are compared with the log when its rows are known.
        sizes(2**62, fractions)
    return {
        "split": split,
        "fractions": None if split == "kaggle" else [float(share) for share in fractions],
        "seed": seed if split == "random" else None,
        "ids": ids,
        "min_count": min_count,
        "max_rows_per_table": max_rows_per_table,
    }


def _existing(
    out: Path, fingerprint: dict[str, Any], options: dict[str, Any], force: bool
) -> Dataset | None:
    """Return the finished dataset at `out`; None when there is nothing, or it may be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir() or not (out / MANIFEST_FILE).exists():
        problem = f"{out} exists and is not a prepared dataset"
        raise DatasetError(f"{problem}; it is left alone: use another --out")
    if force:
        _foreign_files(out)
        return None
    manifest = read_manifest(out)
    other = [
        f"{name} is {manifest['options'].get(name)}, asked for is {value}"
        for name, value in options.items()
        if manifest["options"].get(name) != value
    ]
    if json.loads(json.dumps(fingerprint)) != manifest["fingerprint"]:
        other.insert(0, "it was prepared from another log or with another handling of bad rows")
    if other:
        problem = f"{out} is a dataset that was prepared differently: {'; '.join(other)}"
        raise DatasetError(f"{problem}. Use another --out, or --force to replace it")
    return Dataset.open(out)


def _foreign_files(out: Path) -> None:
    """Raise a DatasetError if a dataset's folder holds anything that is not the dataset's."""
    ours = {MANIFEST_FILE, ENCODER_FILE, VOCABULARY_FOLDER, *SPLITS}
    foreign = sorted(path.name for path in out.iterdir() if path.name not in ours)
    if foreign:
        problem = f"{out} also holds {', '.join(foreign[:3])}, which is not the dataset's"
        raise DatasetError(f"{problem}; move it away or use another --out")


def _remove_dataset(out: Path) -> None:
    """Delete a dataset that is about to be replaced."""
    _foreign_files(out)
    # Without its manifest it is no dataset: whatever happens next, nobody reads half of it.
    (out / MANIFEST_FILE).unlink()
    for path in out.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _check_disk(source: Source, out: Path) -> None:
    """Raise a DatasetError when the disk cannot hold the dataset and what is written on the way."""
    need, free = disk_bytes(source), free_bytes(out)
    if need > free:
        raise DatasetError(
            f"preparing about {source.rows():,} rows needs about {human_bytes(need)} on the disk "
            f"of {out}, but {human_bytes(free)} are free; use an --out on another disk"
        )


def disk_bytes(source: Source) -> int:
    """Return about how much disk `prepare` needs while it works; the dataset is a half of it."""
    row = 4 * len(source.dense) + 4 * len(source.categorical) + 5
    # The blocks, their distinct values with counts and ids (16 bytes for a sixth of the values),
    # and the arrays; the blocks go while the arrays come.
    return int(source.rows() * (1.15 * row + 16 * len(source.categorical) / 6)) + (1 << 20)


def _read(source: Source, spill: Spill, bar: Progress) -> None:
    """First stage: the log becomes blocks of codes."""
    task = bar.add_task("Reading rows", total=source.rows())
    for frame in blocks(source.read()):
        spill.add(frame)
        bar.advance(task, frame.height)
    bar.update(task, total=spill.rows, completed=spill.rows)


def _build(
    source: Source, spill: Spill, folder: Path, order: IdOrder, min_count: int, bar: Progress
) -> dict[str, tuple[int, int]]:
    """Second stage: vocabularies, one at a time. Returns rows and rare samples of each table."""
    (folder / VOCABULARY_FOLDER).mkdir()
    built = {}
    for name in bar.track(source.categorical, description="Building vocabularies"):
        vocabulary: Vocabulary = spill.build(name, order, min_count)
        vocabulary.save(folder / VOCABULARY_FOLDER)
        built[name] = vocabulary.rows, spill.rows - int(vocabulary.frame["count"].sum())
    return built


def _encoder(
    source: Source,
    vocabularies: dict[str, tuple[int, int]],
    max_rows_per_table: int | None,
    folder: Path,
) -> Encoder:
    """Write the encoder next to its vocabularies."""
    encoder = Encoder(
        source=source_name(source),
        dense=source.dense,
        categorical=source.categorical,
        label=source.label,
        rows=tuple(rows for rows, _ in vocabularies.values()),
        max_rows_per_table=max_rows_per_table,
        folder=folder,
    )
    _write_json(folder / ENCODER_FILE, encoder.to_dict())
    return encoder


def _write_splits(
    source: Source, spill: Spill, where: Plan, folder: Path, bar: Progress
) -> dict[str, dict[str, Any]]:
    """Third stage: the blocks become the arrays of the splits. Returns their manifest."""
    kinds: dict[str, tuple[str, int | None]] = {
        "dense": ("f4", len(source.dense)),
        "ids": ("i4", len(source.categorical)),
        "labels": ("u1", None),
    }
    if spill.truth:
        kinds[TRUTH] = ("f4", None)
    writers = {
        (split, array): ArrayWriter(folder, f"{split}/{array}.bin", dtype, columns)
        for split in SPLITS
        for array, (dtype, columns) in kinds.items()
    }
    clicks, rows = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
    task, start = bar.add_task("Writing splits", total=spill.rows), 0
    try:
        for block, height in enumerate(spill.block_rows):
            arrays = spill.read(block)
            for split, piece in where.pieces(start, start + height):
                for array in kinds:
                    writers[split, array].write(arrays[array][piece])
                clicks[split] += int(np.count_nonzero(arrays["labels"][piece]))
                rows[split] += len(arrays["labels"][piece])
            spill.drop(block)
            start += height
            bar.advance(task, height)
        records = {key: writer.close() for key, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.abandon()
    for split in SPLITS:
        sync(folder / split)
    return {
        split: {
            "rows": rows[split],
            "clicks": clicks[split],
            "arrays": {array: records[split, array] for array in kinds},
        }
        for split in SPLITS
    }


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
                "kind": "dense" if name in source.dense else "categorical",
                "rows": rows,
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
        handle = os.open(folder / name, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    sync(folder / VOCABULARY_FOLDER)
    return {name: file_record(folder / name) for name in (ENCODER_FILE, *names)}


def _write_json(path: Path, values: dict[str, Any]) -> None:
    """Write and sync a JSON file."""
    with path.open("w") as stream:
        json.dump(values, stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())


def _bad_rows(source: Source) -> BadRows:
    """Return the rows that the source left out."""
    return source.bad if isinstance(source, CountsBadRows) else BadRows()


def _skipped(source: Source) -> str:
    """Return why there is no good row."""
    bad = _bad_rows(source)
    return f": all {bad.total} were bad, the first is {bad.first[0]}" if bad.total else ""
