"""Files that are either whole or not there: written beside, synced, renamed."""

import ctypes
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

TEMPORARY = ".tmp"
"""How the names of unfinished files end."""

_passing: ContextVar[bool] = ContextVar("passing", default=False)


@contextmanager
def passing() -> Iterator[None]:
    """Wait for no disk within, in this thread: what is written need not survive a power cut."""
    before = _passing.set(True)
    try:
        yield
    finally:
        _passing.reset(before)


def sync(descriptor: int) -> None:
    """Wait until the disk has what was written to an open file."""
    if not _passing.get():
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames inside this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the content of a file survive a power cut."""
    with path.open("rb+") as file:
        sync(file.fileno())


def new_beside(path: Path) -> Path:
    """Make an empty file beside another one, under a name that nobody can guess.

    Its folder may be somebody else's: a file or a link that lies there is never written through.
    """
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(8)}{TEMPORARY}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(temporary, flags, 0o666))
    return temporary


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new file to write, which becomes `path` when the block ends without an error.

    Readers see the old content or the new, never a part.
    """
    temporary = new_beside(path)
    try:
        yield temporary
        sync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing into a folder, which no other is writing into."""
    for path in folder.glob(f".*{TEMPORARY}"):
        if path.is_file() or path.is_symlink():
            path.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def exchange(new: Path, old: Path) -> None:
    """Let two folders of one parent trade places, so that `old` is there at any moment.

    Where the system cannot do that at once, `old` is away for a moment: whoever finds `set_aside`
    in its place puts it back with `recover`.
    """
    if _exchanged(new, old):
        return
    aside = set_aside(old)
    old.rename(aside)
    new.rename(old)
    aside.rename(new)


def set_aside(path: Path) -> Path:
    """Return where a folder lies for a moment while `exchange` puts another in its place."""
    return path.with_name(f".{path.name}.former")


def recover(path: Path) -> None:
    """Put back a folder that a process was killed exchanging."""
    if not os.path.lexists(path) and set_aside(path).is_dir():
        set_aside(path).rename(path)


def _exchanged(new: Path, old: Path) -> bool:
    """Exchange two paths at once, by Linux' renameat2; False where there is no such thing."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_cwd, exchange_flag = -100, 2
    return renameat2(at_cwd, os.fsencode(new), at_cwd, os.fsencode(old), exchange_flag) == 0


def write_json(path: Path, values: Any, indent: int | None = 2) -> None:
    """Write values as JSON, atomically: readable, or in one line."""
    write_bytes(path, (json.dumps(values, indent=indent, allow_nan=False) + "\n").encode())


def write_tensors(
    path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str] | None = None
) -> None:
    """Write and sync a safetensors file; the caller renames it or its folder."""
    from safetensors.torch import save_file

    # save_file makes files that only their owner can read, whatever the umask says.
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, dict(metadata) if metadata else None)
    path.chmod(mode)
    sync_file(path)
