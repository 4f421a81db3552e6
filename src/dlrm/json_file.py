"""JSON files of ours, read with distrust: they may be damaged, cut off, or somebody else's.

A sealed file holds the hash of all that it says, so that a flipped digit is noticed.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from dlrm.errors import DlrmError
from dlrm.files import write_json

SEAL = "sha256"
"""Key of a sealed file's hash."""


def read_json(
    path: Path,
    error: type[DlrmError],
    *,
    keys: Iterable[str] = (),
    sealed: bool = False,
    advice: str = "",
) -> dict[str, Any]:
    """Return the object that a JSON file holds, without its seal.

    It must have all `keys`, and where it is `sealed` a seal; one that is there must be right in any
    case.

    Raises:
        DlrmError: It is missing, no file, no JSON, no object, lacks a key, or was altered; an
            `error`, with the name of the file and `advice`.

    """
    try:
        return parse_object(path.read_bytes(), keys=keys, sealed=sealed)
    except FileNotFoundError:
        problem = "the file is missing"
    except OSError as reason:
        problem = f"it cannot be read ({reason.strerror or reason})"
    except (ValueError, RecursionError) as reason:
        problem = str(reason)
    raise error(f"{path}: {problem}" + (f"; {advice}" if advice else "")) from None


def parse_object(
    content: bytes, *, keys: Iterable[str] = (), sealed: bool = False, nan: bool = False
) -> dict[str, Any]:
    """Return the object that JSON text holds, see `read_json`.

    With `nan` it may hold NaN and infinity, which are no JSON.

    Raises:
        ValueError: It is none, lacks a key, or was altered; says how.

    """
    try:
        value = json.loads(
            content.decode(),
            object_pairs_hook=_unique,
            parse_constant=float if nan else _refuse_constant,
        )
    except RecursionError:
        raise ValueError("not JSON of ours (nested too deep)") from None
    except ValueError as reason:
        raise ValueError(f"not JSON ({reason})") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    required = [*keys, *([SEAL] if sealed else ())]
    if lacking := [key for key in required if key not in value]:
        raise ValueError(f'it has no "{lacking[0]}"')
    if SEAL in value and value.pop(SEAL) != _hash(value):
        raise ValueError("it was altered: its hash differs")
    return value


def write_sealed(path: Path, values: dict[str, Any], indent: int | None = 2) -> None:
    """Write values as JSON, atomically, with the hash of all that they say."""
    write_json(path, {**values, SEAL: _hash(values)}, indent)


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'"{twice}" stands there twice')
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
