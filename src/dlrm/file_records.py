"""Files by name, size and hash, as a dataset and a run keep them of what they consist of.

Names come from JSON files, which may be damaged or somebody else's: what becomes a path is checked
here, so that none leads out of its folder.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from dlrm.errors import DlrmError

CHEAP_BYTES = 64 << 20
"""So many bytes are hashed in the twinkling of an eye."""


def file_record(path: Path) -> dict[str, Any]:
    """Return size and hash of a file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"bytes": stream.tell(), "sha256": digest}


def inside(folder: Path, name: object) -> Path:
    """Return the path of a file in a folder.

    Raises:
        ValueError: The name is none, or leads out of the folder, by itself or through a link.

    """
    parts = str(name).split("/")
    if not isinstance(name, str) or "\0" in name or "\\" in name or {"", ".", ".."} & {*parts}:
        raise ValueError(f"{name!r} is not the name of a file in its folder")
    path = folder / PurePosixPath(name)
    try:
        leaves = not path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        raise ValueError(f"{name} is a link that leads nowhere") from None
    if leaves:
        raise ValueError(f"{name} is a link that leads out of its folder")
    return path


def check_files(
    folder: Path,
    records: Mapping[str, Mapping[str, Any]],
    error: type[DlrmError],
    *,
    wholly: bool = False,
    advice: str,
) -> None:
    """Compare the files of a folder with their records.

    Args:
        folder: Where they are.
        records: Name within the folder -> what `file_record` returned.
        error: What is raised.
        wholly: Whether all files are hashed; else the smallest ones, as many as cost no time, and
            of the others the size is compared.
        advice: What to do about a damaged file, for the error.

    Raises:
        DlrmError: A name is none, or a file is missing or was altered; names it.

    """
    left = CHEAP_BYTES
    for name, record in sorted(records.items(), key=lambda item: item[1]["bytes"]):
        try:
            path = inside(folder, name)
        except ValueError as problem:
            raise error(f"{folder}: {problem}; {advice}") from None
        _check_size(path, record["bytes"], error, advice)
        left -= record["bytes"]
        if not (wholly or left >= 0):
            continue
        digest = file_record(path)["sha256"]
        if digest != record["sha256"]:
            raise error(
                f"{path} was altered: its hash is {digest[:12]}, its record says "
                f"{record['sha256'][:12]}; {advice}"
            )


def _check_size(path: Path, size_bytes: int, error: type[DlrmError], advice: str) -> None:
    """Raise an error unless a file is there and as long as expected."""
    if not path.is_file():
        raise error(f"{path} is missing; {advice}")
    actual_bytes = path.stat().st_size
    if actual_bytes != size_bytes:
        problem = f"{path} has {actual_bytes} bytes, its record says {size_bytes}"
        raise error(f"{problem}; {advice}")
