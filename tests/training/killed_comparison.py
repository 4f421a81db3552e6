"""Kills a tiny comparison before changes of the file system, goes on, and compares the results.

    python killed_comparison.py FOLDER

Prints, as JSON, the changes before which it was killed and those after which something differed.
"""

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from dlrm import terminal
from dlrm.data.loader import LoaderConfig
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.frame import FrameSource
from dlrm.data.store import Dataset
from dlrm.models.lr import LRConfig
from dlrm.optim.config import OptimConfig
from dlrm.training import compare as comparison
from dlrm.training.config import CheckpointConfig, EvalConfig, TrainConfig

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
KILLED = 77
TAKEN = ("elapsed_s", "samples_per_s", "loading_share", "run")
CONFIG = TrainConfig(
    model=LRConfig(),
    optim=OptimConfig(name="rowwise_adagrad", lr=0.1),
    loader=LoaderConfig(batch_size=32),
    eval=EvalConfig(every=2, patience=2),
    checkpoint=CheckpointConfig(every=3),
    epochs=1,
    log_every=3,
    threads=1,
    precision="fp32",
)


def rows() -> Dataset:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 4, 240)
    frame = pl.DataFrame(
        {"a": [f"v{n}" for n in a], "y": (rng.random(240) < 0.2 + 0.15 * a).astype(int)}
    )
    config = PrepareConfig(label=("y",))
    return prepare(FrameSource(frame), Path("rows"), config, quiet=True).dataset


def compare(folder: Path, dataset: Dataset, members: int) -> Any:
    """Return what a comparison came to, without what depends on the clock."""
    config = replace(CONFIG, ensemble=members)
    factors = (1.0, 9.0) if members == 1 else (1.0,)
    compared = comparison.compare(
        folder, "own", config, dataset, models=("lr",), seeds=(0,), factors=factors
    )
    return _timeless(json.loads(json.dumps(compared.to_dict())))


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in TAKEN}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def left(folder: Path) -> dict[str, Any]:
    """Return what a comparison has left, but for what depends on the clock."""
    files: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.name in ("environment.json", "files.json"):
            files[name] = None
        elif file.name == "metrics.jsonl":
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            files[name] = [_timeless(line) for line in lines if line["event"] != "resumed"]
        elif file.suffix == ".json":
            content = json.loads(file.read_text())
            content.pop("crc32", None)
            content.pop("sha256", None)
            files[name] = _timeless(content)
        elif file.is_file():
            files[name] = file.read_bytes()
    return files


def watch(folder: Path, changed: Callable[[str], None]) -> None:
    """Call with what is about to change in a folder, as `event name`, before it does."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            written = isinstance(arguments[2], int) and arguments[2] & os.O_APPEND
            if not (written and str(arguments[0]).startswith(str(folder))):
                return
        elif event not in CHANGES:
            return
        # A removal may name a file within the folder that is removed.
        name = re.sub(r"[0-9a-f]{16}|[0-9]{9}", "N", Path(str(arguments[0])).name)
        changed(f"{event} {name}")

    sys.addaudithook(hook)


def in_child(work: Callable[[], None]) -> int:
    """Return the exit status of a process of its own that does the work."""
    if (child := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def record(dataset: Dataset, members: int) -> None:
    """Compare undisturbed, and write down the result and all changes."""
    seen: list[str] = []
    folder = Path(f"unbroken-{members}")
    watch(folder, seen.append)
    result = compare(folder, dataset, members)
    Path("unbroken.json").write_text(json.dumps({"result": result, "changes": seen}))


def kill(dataset: Dataset, members: int, folder: Path, number: int) -> None:
    """Compare until the change of a number, counted from 0, is about to be made."""
    count = -1

    def changed(_: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            os._exit(KILLED)

    watch(folder, changed)
    compare(folder, dataset, members)


def go_on(dataset: Dataset, members: int, folder: Path) -> None:
    Path("again.json").write_text(json.dumps(compare(folder, dataset, members)))


def main(folder: Path, members: int) -> None:
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    terminal.silence()
    dataset = rows()
    assert in_child(partial(record, dataset, members)) == 0
    unbroken = json.loads(Path("unbroken.json").read_text())
    expected = left(Path(f"unbroken-{members}"))
    changes: list[str] = unbroken["changes"]
    # The last change of each kind: at the end of a run, nothing after it would hide what is left.
    last = {name: number for number, name in enumerate(changes)}
    killed, different = [], []
    for number in sorted(last.values()):
        path = Path(f"killed-{number}")
        if in_child(partial(kill, dataset, members, path, number)) != KILLED:
            different.append(f"{number} {changes[number]}: not killed")
            continue
        killed.append(changes[number])
        went_on = in_child(partial(go_on, dataset, members, path)) == 0
        if not went_on or json.loads(Path("again.json").read_text()) != unbroken["result"]:
            different.append(f"{number} {changes[number]}: the result")
        now = left(path)
        files = [name for name in {*now, *expected} if now.get(name) != expected.get(name)]
        different += [f"{number} {changes[number]}: {name}" for name in sorted(files)]
    print(json.dumps({"killed": killed, "different": different}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
