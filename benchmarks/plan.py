"""Does `dlrm plan` say what then happens? Runs are planned, then trained, each in its own process.

    python benchmarks/plan.py [--only small,large]

Speed, time of an epoch, peak memory, and bytes on disk: each should be within 20%.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlrm.bench.results import append
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.clicks import ClicksSource
from dlrm.data.store import MANIFEST_FILE
from dlrm.errors import unknown
from dlrm.files import write_json

RUNS: dict[str, tuple[int, int, tuple[str, ...]]] = {
    "small": (1_500_000, 0, ("demo", "--no-baseline")),
    "large": (300_000, 5_000_000, ("criteo-kaggle", "--loader.batch-size", "128")),
    "adam": (
        1_000_000,
        3_000_000,
        ("criteo-kaggle", "--loader.batch-size", "2048", "--optim.name", "adam",
         "--optim.lr", ".001"),
    ),
    "deepfm": (
        1_000_000,
        2_000_000,
        ("criteo-kaggle", "--model", "deepfm", "--loader.batch-size", "4096", "--optim.name",
         "rowwise_adagrad", "--optim.lr", ".01"),
    ),
    "xdeepfm": (150_000, 0, ("criteo-kaggle", "--model", "xdeepfm", "--loader.batch-size", "512")),
    "hashed": (
        500_000,
        8_000_000,
        ("criteo-kaggle", "--model", "dcnv2", "--loader.batch-size", "1024",
         "--optim.lr", ".01", "--model.tables.compression", "hash"),
    ),
}  # fmt: skip
"""Name -> samples of the generated log, rows of all tables (0 for those of the log), and flags."""
TOLERANCE = 0.2


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--only", default=",".join(RUNS), help="runs, separated by commas")
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--quick", action="store_true", help="a few rows: does it work at all?")
    flags.add_argument("--threads", default="0", help="of torch, e.g. where others compute too")
    given = flags.parse_args(list(words))
    names = given.only.split(",")
    for name in names:
        if name not in RUNS:
            raise unknown("run", name, RUNS)
    for name in names[:1] if given.quick else names:
        samples, rows, run = RUNS[name]
        with tempfile.TemporaryDirectory() as folder:
            data = larger(Path(folder), 3_000 if given.quick else samples, rows)
            figures = compared(
                Path(folder), [*run, "--data", str(data), "--threads", given.threads]
            )
        print(name)
        for figure, (planned, found) in figures.items():
            off = planned / found - 1
            verdict = "within" if abs(off) <= TOLERANCE else "OUTSIDE"
            print(f"  {figure}: planned {planned:,.0f}, found {found:,.0f}: {off:+.1%}, {verdict}")
        row: dict[str, Any] = {"run": name, "samples": samples, "rows": rows, "flags": run}
        row["given_threads"] = int(given.threads)
        for figure, (planned, found) in figures.items():
            row |= {f"planned_{figure}": planned, figure: found}
        print(f"  written to {append('plan', row, given.out)}", flush=True)


def larger(folder: Path, samples: int, rows: int) -> Path:
    """Prepare a generated log, with tables larger than its values ask for."""
    source = ClicksSource(samples, seed=1)
    data = prepare(source, folder / "clicks", PrepareConfig(split="chronological")).dataset.path
    manifest = json.loads((data / MANIFEST_FILE).read_text())
    tables = manifest["schema"]["tables"]
    for table in tables:
        table["num_embeddings"] = max(table["num_embeddings"], rows // len(tables))
    write_json(data / MANIFEST_FILE, manifest)
    return data


def compared(folder: Path, words: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return what was planned and what was found, by name of the figure."""
    planned, _ = call("plan", *words, folder=folder)
    run = folder / "run"
    trained, peak_bytes = call("train", *words, "--run", str(run), folder=folder)
    newest = max((run / "checkpoints").iterdir())
    fit_s = (newest / "progress.json").stat().st_mtime - (run / "config.json").stat().st_mtime
    found = {
        "samples_per_s": trained["samples_per_s"],
        "epoch_s": fit_s,
        "resident_bytes": peak_bytes,
        "checkpoint_bytes": sum(path.stat().st_size for path in newest.iterdir()),
        "dataset_bytes": sum(
            path.stat().st_size for path in (folder / "clicks").rglob("*") if path.is_file()
        ),
    }
    return {name: (planned[name], value) for name, value in found.items()}


def call(*words: str, folder: Path) -> tuple[dict[str, Any], int]:
    """Run a command and return its JSON and the peak of its memory in bytes."""
    command = [sys.executable, "-m", "dlrm", *words, "--json"]
    out = folder / "out.txt"
    with out.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return json.loads(out.read_text().splitlines()[-1]), usage.ru_maxrss * 1024


if __name__ == "__main__":
    main(sys.argv[1:])
