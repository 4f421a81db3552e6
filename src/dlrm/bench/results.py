"""Results: one JSON object a line, each with what it takes to judge it and to repeat it.

    {"schema": 1, "suite": "train", ...what was measured and the figures..., ...provenance}

Provenance is the commit, the versions, the hardware and its fingerprint, threads, what MLPs
multiply by, load, stolen CPU time, seed, time and command. benchmarks/RULES.md says how figures are
taken.
"""

import json
import math
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from dlrm.errors import ConfigError, InputError
from dlrm.ops.choice import choices
from dlrm.training.new_run import environment

SCHEMA = 1
"""Version of the rows' format; older rows have none."""

RESULTS = Path("benchmarks") / "results"
"""Where rows are kept, below the current folder: benchmarks run in the root of the repository."""

VERSIONS = ("dlrm", "python", "torch", "numpy", "polars")

MEASURED = ("threads", "load", "steal_share", "others_share", "seed")
"""Provenance that a measurement may know better than the process that writes its row."""

PROVENANCE = (
    "schema", "suite", "commit", *VERSIONS, "cpu", "cores", *MEASURED, "products", "system",
    "machine", "taken", "command",
)  # fmt: skip
"""Keys that say where a row comes from, not what was measured."""


def row(suite: str, values: Mapping[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """Return a row: what was measured, and where it comes from.

    Values are settings and figures, JSON-ready. Those of `MEASURED` win over what this function
    finds; `Watch` gives all of them but the seed, which is of the inputs.

    Raises:
        ConfigError: A value has the name of something that says where rows come from.

    """
    for name in PROVENANCE:
        if name in values and name not in MEASURED:
            raise ConfigError(
                f'a value of a {suite} row is called "{name}", which says where rows come from'
            )
    return {
        "schema": SCHEMA,
        "suite": suite,
        **values,
        **{
            name: value
            for name, value in {
                "commit": _commit(),
                **machine(),
                "steal_share": None,
                "seed": seed,
                "taken": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": command(sys.argv),
            }.items()
            if name not in values
        },
    }


def machine() -> dict[str, Any]:
    """Return what a figure depends on besides the code: versions, hardware, threads and load.

    `products` are what MLPs have multiplied by in this process, see `dlrm.ops.ways`.
    """
    from dlrm.planning.facts import facts

    known = environment()
    return {
        **{name: known[name] for name in (*VERSIONS, "cpu", "cores", "threads")},
        "load": os.getloadavg()[0],
        "products": choices.used(),
        "system": platform.system(),
        "machine": facts().fingerprint,
    }


def command(argv: Sequence[str]) -> str:
    """Return a command line as one that says nothing of the folders of this machine.

    >>> command(["/home/me/bin/dlrm", "bench", "train", "--out=/home/me/rows.jsonl"])
    'dlrm bench train --out=rows.jsonl'
    """
    words = [re.sub(r"(?:\b[A-Za-z]:\\)?[^\s=:,]*[/\\]", "", word) for word in argv]
    if words and words[0] == "__main__.py":
        words[0] = "dlrm"
    return shlex.join(words)


def save(rows: Sequence[Mapping[str, Any]], out: Path | None = None) -> Path:
    """Append rows to a file, one write a row, and return the file.

    Figures that are no numbers (infinite, or not a number) become null. Without a file it is
    `RESULTS`/<hardware>/<date>-<suite of the first>.jsonl.
    """
    path = out or _usual(rows[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(_plain(row), allow_nan=False) + "\n")
            file.flush()
    return path


def append(suite: str, values: Mapping[str, Any], out: Path | None = None) -> Path:
    """Append one row, see `row` and `save`."""
    return save([row(suite, values)], out)


def load(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, those of before there were schemas too.

    Raises:
        InputError: A line is no row of results (says which), or there is none.

    """
    if path.is_dir():
        raise InputError("is a folder, expected a file of results", file=path)
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            # NaN and Infinity are no JSON, but some write them.
            row = json.loads(line, parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            problem = f"expected a row of results as JSON, found {_start(line)} ({error})"
            raise InputError(problem, file=path, line=number) from None
        if not isinstance(row, dict) or not isinstance(row.get("suite"), str):
            problem = f'expected an object that says its "suite", found {_start(line)}'
            raise InputError(problem, file=path, line=number)
        rows.append(row)
    if not rows:
        raise InputError("has no rows of results", file=path)
    return rows


def _usual(first: Mapping[str, Any]) -> Path:
    hardware = f"{first['cpu']}-{first['cores']}-cores".lower().replace(" ", "-")
    return RESULTS / hardware / f"{datetime.now(UTC):%Y-%m-%d}-{first['suite']}.jsonl"


def _start(line: bytes) -> str:
    text = line.decode(errors="replace").strip()
    return f"{text[:40]}..." if len(text) > 40 else text


def _plain(value: Any) -> Any:
    """Return a value that JSON has words for."""
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@cache
def _commit() -> str:
    described = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"
