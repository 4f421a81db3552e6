"""The folder that `prepare` writes to: what may stand there; it appears whole or not at all.

Work goes into a hidden sibling `.<name>.partial`, locked as long as its process lives, and is
renamed at the end. The lock goes with the process, however it ends, so whoever finds a folder
without one may clear it.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import polars as pl

from dlrm.data.features.columns import Columns
from dlrm.data.split import SPLITS
from dlrm.data.store import (
    FEATURES_FILE,
    FORMAT,
    MANIFEST_FILE,
    VOCABULARY_FOLDER,
    Dataset,
    read_manifest,
)
from dlrm.errors import DatasetError
from dlrm.files import exchange, recover, set_aside, sync_folder
from dlrm.json_file import read_json
from dlrm.lock import locked, try_lock
from dlrm.terminal import human_bytes

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENOTEMPTY)


@contextmanager
def staged(target: Path, entries: Collection[str]) -> Iterator[Path]:
    """Give a folder to work in, which becomes `target` when the block ends without an error.

    A folder that stands at `target` is replaced at once: at any moment there is it or the new one.
    What an earlier, killed process left is cleared first;
    whatever stops this block, an error or an interrupt, its folder is removed.
    """
    partial = target.with_name(f".{target.name}.partial")
    with _dataset_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(partial, target)
        try:
            left = list(partial.iterdir())
            if foreign := [path for path in left if path.name not in entries]:
                raise DatasetError(f"{foreign[0]} is in the way and no dataset's; move it away")
            for path in left:
                _delete(path)
            if target.exists() and (former := set_aside(target)).is_dir():
                # Killed after the new folder had taken its place.
                _remove(former)
            try:
                yield partial
                sync_folder(partial)
                _put(partial, target)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            sync_folder(target.parent)
        finally:
            os.close(lock)


@contextmanager
def _dataset_errors(target: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a DatasetError."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        # What polars writes fails without a number, but says "(os error 28)".
        match = re.search(r"os error (\d+)", str(error))
        number = getattr(error, "errno", None) or int(match[1] if match else 0)
        if number in _FULL:
            free = human_bytes(free_bytes(target))
            problem = f"the disk of {target} is full ({free} free now)"
            raise DatasetError(f"{problem}; nothing was kept: free some space") from error
        if number in _REFUSED:
            raise DatasetError(f"{target} cannot be written: {os.strerror(number)}") from error
        raise


def _lock(partial: Path, target: Path) -> int:
    for _ in range(100):
        partial.mkdir(exist_ok=True)
        try:
            lock = try_lock(partial)
        except FileNotFoundError:
            continue
        if lock is None:
            problem = f"another process is preparing {target} right now"
            raise DatasetError(f"{problem}; wait for it, or use another --out")
        # Its owner may have renamed or removed the folder between the opening and the lock.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), partial.stat()):
                return lock
        os.close(lock)
    raise DatasetError(f"{partial} could not be locked; use another --out")


def _put(partial: Path, target: Path) -> None:
    """Rename the finished folder, or let it trade places with a former one, which is removed."""
    if not target.exists() or not any(target.iterdir()):
        partial.rename(target)
        return
    # Locked, so that nobody takes it for a leftover while it is removed.
    with locked(target, DatasetError, "replacing"):
        exchange(partial, target)
        _remove(partial)


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        _delete(path)
    folder.rmdir()


def _delete(path: Path) -> None:
    """Delete a file, a folder with what is in it, or a link, never what it leads to."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def free_bytes(target: Path) -> int:
    """Return the free space where `target` is or will be."""
    there = target.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


ENTRIES = frozenset({MANIFEST_FILE, FEATURES_FILE, VOCABULARY_FOLDER, "spill", *SPLITS})
"""What `prepare` puts into a folder."""
_FORMER = frozenset({"encoder.json"})
"""What it put there in former versions of the format."""


def existing(
    out: Path, fingerprint: dict[str, Any], options: dict[str, Any], *, force: bool
) -> Dataset | None:
    """Return the finished dataset at `out`; None when there is nothing, or it may be replaced."""
    recover(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir() or not (out / MANIFEST_FILE).exists():
        problem = f"{out} exists and is not a prepared dataset"
        raise DatasetError(f"{problem}; it is left alone: use another --out")
    if force:
        check_replaceable(out)
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


def check_replaceable(out: Path) -> None:
    """Raise a DatasetError unless `out` is nothing, empty, or a dataset and nothing else."""
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / MANIFEST_FILE).exists():
        raise DatasetError(f"{out} appeared meanwhile and is no dataset; use another --out")
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


def check_space(rows: int, need: int, out: Path) -> None:
    """Raise a DatasetError when less than `need` bytes are free on the disk of `out`."""
    if need > (free := free_bytes(out)):
        raise DatasetError(
            f"preparing about {rows:,} rows needs about {human_bytes(need)} on the disk "
            f"of {out}, but {human_bytes(free)} are free; use an --out on another disk"
        )


def disk_bytes(rows: int, schema: Columns | None) -> int:
    """Return about how much disk `prepare` needs while it works.

    Args:
        rows: Rows of the source.
        schema: Where it is known before any row is read.

    """
    if schema is None or not schema.whole_log:
        return 400 * rows
    # Raw parts and arrays; vocabularies take some 18 bytes for about a third of the values.
    numbers = sum(column.kind == "number" for column in schema.used())
    categories = len(schema.used()) - numbers
    return rows * (12 * numbers + 14 * categories + 2) + (1 << 20)
