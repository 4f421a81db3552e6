"""A folder that one process at a time works on; the lock goes with the process, however it ends."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlrm.errors import DlrmError

_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EBADF)
"""What file systems say that have no locks, or, as NFS, none for folders."""


def try_lock(folder: Path) -> int | None:
    """Lock a folder and return the open lock; None where another holds it.

    Raises:
        OSError: There is no such folder, or it cannot be opened.

    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(lock)
            raise
    return lock


@contextmanager
def locked(folder: Path, error: type[DlrmError], what: str) -> Iterator[None]:
    """Hold the lock of a folder within the block.

    Raises:
        DlrmError: Another process holds it; an `error` that says `what` it does, e.g. `training`.

    """
    lock = try_lock(folder)
    if lock is None:
        raise error(f"another process is {what} {folder} right now; wait for it, or stop it")
    try:
        yield
    finally:
        os.close(lock)
