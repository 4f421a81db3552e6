"""A folder that appears whole or not at all.

Work goes into a hidden sibling `.<name>.partial`, locked as long as its process lives, and is
renamed at the end. The lock goes with the process, however it ends, so whoever finds a folder
without one may clear it.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlrm.errors import DatasetError
from dlrm.terminal import human_bytes

_MARK = ".dlrm-partial"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give a folder to work in, which becomes `target` when the block ends without an error.

    An empty folder may stand at `target`. What an earlier, killed process left is cleared first;
    whatever stops this block, an error or an interrupt, its folder is removed.

    Raises:
        DatasetError: Another process is at work on the same target, or the disk is full.

    """
    partial = target.with_name(f".{target.name}.partial")
    lock = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(partial, target)
        _clear(partial)
        (partial / _MARK).touch()
        yield partial
        (partial / _MARK).unlink()
        sync(partial)
        partial.rename(target)
        sync(target.parent)
    except BaseException as error:
        if lock is not None:
            shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise DatasetError(_full(target)) from error
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EEXIST):
            raise DatasetError(f"{target} cannot be written: {error.strerror}") from error
        raise
    finally:
        if lock is not None:
            os.close(lock)


def _lock(partial: Path, target: Path) -> int:
    """Make and lock the partial folder; return the open lock."""
    for _ in range(100):
        partial.mkdir(exist_ok=True)
        try:
            lock = os.open(partial, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            problem = f"another process is preparing {target} right now"
            raise DatasetError(f"{problem}; wait for it, or use another --out") from None
        # Its owner may have renamed or removed the folder between the opening and the lock.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), partial.stat()):
                return lock
        os.close(lock)
    raise DatasetError(f"{partial} could not be locked; use another --out")


def _clear(partial: Path) -> None:
    """Remove what a killed process left, and nothing else."""
    left = list(partial.iterdir())
    if left and partial / _MARK not in left:
        raise DatasetError(f"{partial} holds files that are not ours; move it away")
    # The mark goes last: a process that is killed here leaves a folder that can be cleared.
    for path in sorted(left, key=lambda path: path.name == _MARK):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def sync(folder: Path) -> None:
    """Make the entries of a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_bytes(target: Path) -> int:
    """Return the free space where `target` is or will be."""
    there = target.absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free


def _full(target: Path) -> str:
    """Return the message for a full disk."""
    free = human_bytes(free_bytes(target))
    return f"the disk of {target} is full ({free} free now); nothing was kept: free some space"
