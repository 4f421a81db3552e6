"""Files that are either whole or not there: written beside, synced, renamed."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

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


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            sync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_json(path: Path, values: Any) -> None:
    """Write values as readable JSON, atomically."""
    write_bytes(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


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
