"""The folder that `prepare` writes to: what may stand there already, and what may go."""

import json
from pathlib import Path
from typing import Any

from dlrm.data.features.columns import Columns
from dlrm.data.split import SPLITS
from dlrm.data.staging import free_bytes
from dlrm.data.store import (
    FEATURES_FILE,
    FORMAT,
    MANIFEST_FILE,
    VOCABULARY_FOLDER,
    Dataset,
    read_manifest,
)
from dlrm.errors import DatasetError
from dlrm.files import recover
from dlrm.json_file import read_json
from dlrm.terminal import human_bytes

ENTRIES = frozenset({MANIFEST_FILE, FEATURES_FILE, VOCABULARY_FOLDER, "spill", *SPLITS})
"""What `prepare` puts into a folder."""
_FORMER = frozenset({"encoder.json"})
"""What it put there in former versions of the format."""


def existing(
    out: Path, fingerprint: dict[str, Any], options: dict[str, Any], *, force: bool
) -> Dataset | None:
    """Return the finished dataset at `out`; None when there is nothing, or it may be replaced.

    Args:
        out: The folder.
        fingerprint: Of the log that is asked for.
        options: That are asked for.
        force: Whether a dataset made from other ones may be replaced.

    Raises:
        DatasetError: The folder holds something else; says what differs.

    """
    recover(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir() or not (out / MANIFEST_FILE).exists():
        problem = f"{out} exists and is not a prepared dataset"
        raise DatasetError(f"{problem}; it is left alone: use another --out")
    if force:
        _check_only_dataset(out)
        return None
    manifest = read_manifest(out)
    stored = manifest.get("options", {})
    differences = [
        f"{name} is {stored.get(name)}, asked for is {value}"
        for name, value in options.items()
        if stored.get(name) != value
    ]
    if json.loads(json.dumps(fingerprint)) != manifest.get("fingerprint"):
        differences.insert(0, "it was made from another log, or with another handling of bad rows")
    if differences:
        problem = f"{out} is a dataset that was prepared differently: {'; '.join(differences)}"
        raise DatasetError(f"{problem}. Use another --out, or --force to replace it")
    return Dataset.open(out)


def _check_only_dataset(out: Path) -> None:
    """Raise a DatasetError unless a folder is a dataset and nothing but a dataset."""
    try:
        is_dataset = read_json(out / MANIFEST_FILE, DatasetError)["format"] == FORMAT
    except (DatasetError, KeyError):
        # Damaged, perhaps; the features beside it tell.
        is_dataset = any((out / name).exists() for name in (FEATURES_FILE, *_FORMER))
    if not is_dataset:
        problem = f"{out} is not a prepared dataset (its {MANIFEST_FILE} says otherwise)"
        raise DatasetError(f"{problem}; it is left alone: use another --out")
    foreign = sorted({path.name for path in out.iterdir()} - ENTRIES - _FORMER)
    if foreign:
        problem = f"{out} also holds {', '.join(foreign[:3])}, which is not the dataset's"
        raise DatasetError(f"{problem}; move it away or use another --out")


def check_replaceable(out: Path) -> None:
    """Raise a DatasetError unless `out` is nothing, empty, or a dataset and nothing else."""
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / MANIFEST_FILE).exists():
        raise DatasetError(f"{out} appeared meanwhile and is no dataset; use another --out")
    _check_only_dataset(out)


def check_space(rows: int, need: int, out: Path) -> None:
    """Raise a DatasetError when less than `need` bytes are free on the disk of `out`."""
    if need > (free := free_bytes(out)):
        raise DatasetError(
            f"preparing about {rows:,} rows needs about {human_bytes(need)} on the disk "
            f"of {out}, but {human_bytes(free)} are free; use an --out on another disk"
        )


def disk_bytes(rows: int, log: Columns | None) -> int:
    """Return about how much disk `prepare` needs while it works.

    Args:
        rows: Of the source.
        log: The schema of a log that goes through blocks of codes; None for other rows.

    """
    if log is None:
        return 400 * rows
    categories = sum(column.kind == "category" for column in log.used())
    row = 4 * len(log.used()) + 5
    # The blocks, which go while the arrays come; distinct values with their counts, ids and
    # vocabularies take some 18 bytes, for about a third of all values.
    return int(rows * (row + 6 * categories)) + (1 << 20)
