"""How good the released recipes are, and whether they still are: docs/guides/accuracy.md's table.

    python benchmarks/accuracy.py --data FOLDER [--only amazon,criteo] [--seeds 5]

FOLDER (or DLRM_DATA) holds the public tables, one folder each, as docs/guides/accuracy.md says;
what is not there is left out, and that is said. Each line of accuracy.jsonl is an entry: the words
of a `dlrm train` command, its data, the metric and split that count, the target, and what was
reached, with a tolerance. An entry fails when the mean over the seeds is worse than what was
reached by more than the tolerance. Rows are appended below benchmarks/results/.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from dlrm import terminal
from dlrm.bench.results import append
from dlrm.commands.train import TrainResult
from dlrm.commands.train import main as train

ENTRIES = Path(__file__).with_name("accuracy.jsonl")
Metric = Literal["auc", "log_loss", "gap_closed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One line of accuracy.jsonl."""

    name: str
    words: list[str]
    """Of `dlrm train`, without data, run and seeds."""
    data: str
    """Below the folder of tables; or a generated log."""
    metric: Metric
    """gap_closed is the share of the AUC between logistic regression and the optimum."""
    split: Literal["validation", "test"]
    target: float | None
    """What was set out for; None where nothing was."""
    reached: float
    """The mean over the seeds when it was last looked at."""
    tolerance: float
    minutes: float
    """That all seeds take on two cores."""
    resplit: bool = False
    """Whether each seed divides the rows anew."""

    @property
    def higher(self) -> bool:
        """Whether more is better."""
        return self.metric != "log_loss"

    def holds(self, value: float, bound: float, slack: float = 0.0) -> bool:
        """Whether a value is as good as a bound, but for some slack."""
        return value >= bound - slack if self.higher else value <= bound + slack


def entries() -> list[Entry]:
    """Return the lines of accuracy.jsonl."""
    return [Entry(**json.loads(line)) for line in ENTRIES.read_text().splitlines()]


def measured(result: TrainResult, entry: Entry) -> float:
    """Return the metric of an entry."""
    seen = result.evaluations[entry.split]
    if entry.metric != "gap_closed":
        return seen["metrics"][entry.metric]
    low, high = seen["baseline"]["metrics"]["auc"], seen["optimum"]["auc"]
    return (seen["metrics"]["auc"] - low) / (high - low)


def main(words: Sequence[str] = ()) -> int:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    there = os.environ.get("DLRM_DATA")
    flags.add_argument("--data", type=Path, default=there, help="folder of the public tables")
    flags.add_argument("--only", default="", help="entries whose name has one of these words")
    flags.add_argument("--seeds", type=int, default=5)
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--quick", action="store_true", help="one short entry: does it work at all?")
    given = flags.parse_args(list(words))
    chosen = [
        entry
        for entry in entries()
        if not given.only or any(word in entry.name for word in given.only.split(","))
    ]
    if given.quick:
        chosen, given.seeds = [_quick()], 2
    grid = terminal.table("Accuracy", "entry", "AUC", "log loss", "what counts", "target", "")
    failed = []
    for entry in chosen:
        data = entry.data if entry.data.startswith("clicks") else _found(given.data, entry.data)
        if data is None:
            print(f"Without {entry.name}: --data has no {entry.data}")
            continue
        print(f"== {entry.name}, some {entry.minutes:g} min", flush=True)
        row = _run(entry, data, given.seeds)
        if given.quick:
            print(f"{entry.name}: {row['value']:.4f}")
            continue
        append("accuracy", row, given.out)
        if not row["holds"]:
            failed.append(entry.name)
        _show(grid, entry, row)
    if not given.quick:
        terminal.out.print(grid)
    if failed:
        print(f"WORSE THAN BEFORE: {', '.join(failed)}")
    return 1 if failed else 0


def _run(entry: Entry, data: str, seeds: int) -> dict[str, Any]:
    """Train an entry with several seeds; return its row."""
    results = []
    # In a folder of its own, because prepared datasets go below the current one.
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        for seed in range(seeds):
            path = str(Path(folder) / f"{seed}")
            # Members of an ensemble take the seeds from this one on: they must not be shared.
            first = str(100 * seed)
            named = ["--data", data, "--run", path, "--seed", first, "--loader.seed", first]
            if entry.resplit:
                named += ["--prepare.seed", str(seed)]
            results.append(train([*entry.words, *named], "dlrm train"))
            print(f"   seed {seed}: {measured(results[-1], entry):.5f}", flush=True)
    values = [measured(result, entry) for result in results]
    mean = fmean(values)
    row: dict[str, Any] = {
        "benchmark": "accuracy",
        "entry": entry.name,
        "words": entry.words,
        "split": entry.split,
        "metric": entry.metric,
        "value": mean,
        "spread": stdev(values) if len(values) > 1 else None,
        "values": values,
        "target": entry.target,
        "met": None if entry.target is None else entry.holds(mean, entry.target),
        "reached_before": entry.reached,
        "holds": entry.holds(mean, entry.reached, entry.tolerance),
        "samples_per_s": fmean(result.effort.samples_per_s for result in results),
        "elapsed_s": fmean(result.effort.elapsed_s for result in results),
    }
    for metric in ("auc", "log_loss"):
        seen = [result.evaluations[entry.split]["metrics"][metric] for result in results]
        row[metric], row[f"{metric}_spread"] = fmean(seen), stdev(seen) if len(seen) > 1 else None
    return row


def _show(grid: Any, entry: Entry, row: dict[str, Any]) -> None:
    cells = []
    for metric in ("auc", "log_loss"):
        spread = row[f"{metric}_spread"]
        cells.append(f"{row[metric]:.4f}" + ("" if spread is None else f" ± {spread:.4f}"))
    sign = ">=" if entry.higher else "<="
    target = "" if entry.target is None else f"{sign} {entry.target:g}"
    counts = f"gap {row['value']:.3f}" if entry.metric == "gap_closed" else entry.metric
    met = {None: "", True: "met", False: "missed"}[row["met"]]
    grid.add_row(entry.name, *cells, counts, target, met)


def _found(folder: Path | None, name: str) -> str | None:
    if folder is None or not (folder / name).exists():
        return None
    return str((folder / name).resolve())


def _quick() -> Entry:
    return Entry(
        name="demo",
        words=["demo"],
        data="clicks:3000",
        metric="gap_closed",
        split="test",
        target=None,
        reached=0.0,
        tolerance=1.0,
        minutes=0.1,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
