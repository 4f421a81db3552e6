"""A folder that appears whole or not at all.

Work goes into a hidden sibling `.<name>.partial`, locked as long as its process lives, and is
renamed at the end. The lock goes with the process, however it ends, so whoever finds a folder
without one may clear it.
"""

import errno
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl

from dlrm.errors import DatasetError
from dlrm.files import exchange, set_aside, sync_folder
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

    Args:
        target: Where the finished folder goes.
        entries: Names of what the block puts into it; a leftover with others is not cleared.

    Raises:
        DatasetError: Another process is at work on the same target, or the disk is full.

    """
    partial = target.with_name(f".{target.name}.partial")
    with _dataset_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(partial, target)
        try:
            _clear(partial, entries)
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
        number = _errno(error)
        if number in _FULL:
            free = human_bytes(free_bytes(target))
            problem = f"the disk of {target} is full ({free} free now)"
            raise DatasetError(f"{problem}; nothing was kept: free some space") from error
        if number in _REFUSED:
            raise DatasetError(f"{target} cannot be written: {os.strerror(number)}") from error
        raise


def _errno(error: Exception) -> int | None:
    """Return the error number of the operating system; None where there is none."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    # What polars writes fails without a number, but says "(os error 28)".
    number = re.search(r"os error (\d+)", str(error))
    return int(number[1]) if number else None


def _lock(partial: Path, target: Path) -> int:
    """Make and lock the partial folder; return the open lock."""
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
    """Remove a folder and what is in it; of links the link, never what it leads to."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    folder.rmdir()


def _clear(partial: Path, entries: Collection[str]) -> None:
    """Remove what a killed process left, and nothing else."""
    left = list(partial.iterdir())
    for path in left:
        if path.name not in entries:
            raise DatasetError(f"{path} is in the way and no dataset's; move it away")
    for path in left:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def free_bytes(target: Path) -> int:
    """Return the free space where `target` is or will be."""
    there = target.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free
