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
    """Compare the files of a folder with their records: name -> what `file_record` returned.

    Sizes are compared, and hashes of the smallest files, as many as cost no time; of all files if
    `wholly`.

    Raises:
        DlrmError: A name is none, or a file is missing or was altered; an `error` that names it,
            with `advice`.

    """
    left = CHEAP_BYTES
    for name, record in sorted(records.items(), key=lambda item: item[1]["bytes"]):
        try:
            path = inside(folder, name)
        except ValueError as problem:
            raise error(f"{folder}: {problem}; {advice}") from None
        if not path.is_file():
            raise error(f"{path} is missing; {advice}")
        actual_bytes, size_bytes = path.stat().st_size, record["bytes"]
        if actual_bytes != size_bytes:
            problem = f"{path} has {actual_bytes} bytes, its record says {size_bytes}"
            raise error(f"{problem}; {advice}")
        left -= size_bytes
        if wholly or left >= 0:
            digest, known = file_record(path)["sha256"], record["sha256"]
            if digest != known:
                problem = f"its hash is {digest[:12]}, its record says {known[:12]}"
                raise error(f"{path} was altered: {problem}; {advice}")
