"""How long from raw text to a trained model, beside the original: one epoch of the generated log.

    python benchmarks/end_to_end.py --original CLONE

CLONE is a clone of facebookresearch/dlrm (or the variable DLRM_ORIGINAL); without it only this
project is measured. The original goes about it in the fastest of its ways, found on a shorter log;
the full log takes it some minutes. With --original-lines it gets fewer, and its time for all of
them is extrapolated, which the row says. The goal is 15 times the original.

Ours is measured as it is by default, with ten evaluations an epoch, and evaluated once at the end
as the original is here. It runs before the original and after it, in case the machine changes pace.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dlrm.bench.results import append
from dlrm.errors import ConfigError
from dlrm.terminal import human_bytes, table
from raw_to_model import ARCH, WAYS, EndToEnd, extrapolated_s, original, ours, write_log

LINES, TRIAL_LINES, QUICK_LINES = 2_000_000, 200_000, 4_000
CANDIDATES = {"ours": (), "ours_evaluated_once": ("--eval.every=1000000",)}
"""Name -> flags of `dlrm train`."""


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--original", type=Path, default=os.environ.get("DLRM_ORIGINAL"))
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--lines", type=int, default=LINES)
    flags.add_argument("--original-lines", type=int, default=0, help="for the original; 0 for all")
    flags.add_argument("--trial-lines", type=int, default=TRIAL_LINES, help="to find its best way")
    flags.add_argument("--batch", type=int, default=2048)
    flags.add_argument("--quick", action="store_true", help="a few lines: does it work at all?")
    given = flags.parse_args(list(words))
    if given.quick:
        given.lines, given.trial_lines, given.batch = QUICK_LINES, QUICK_LINES // 2, 128
    its_lines = given.original_lines or given.lines
    if not given.trial_lines < its_lines <= given.lines:
        raise ConfigError(
            f"trial-lines {given.trial_lines}, original-lines {its_lines} and lines {given.lines}: "
            "each must be above the one before, the last two may be equal"
        )
    with tempfile.TemporaryDirectory() as name:
        row = measure(Path(name), given, its_lines)
    print(f"Saved: {append('end-to-end', row, given.out)}")


def measure(folder: Path, given: argparse.Namespace, its_lines: int) -> dict[str, Any]:
    """Run everything, show it, and return the row of results."""
    console = Console()

    def fresh() -> Path:
        return Path(tempfile.mkdtemp(dir=folder))

    def run_ours(raw: Path, lines: int, name: str) -> EndToEnd:
        return ours(raw, lines, fresh(), given.batch, CANDIDATES[name])

    def run_original(raw: Path, lines: int, way: str) -> EndToEnd:
        return original(given.original, raw, lines, fresh(), given.batch, WAYS[way])

    raw = write_log(folder / "raw.txt", given.lines)
    short = write_log(folder / "short.txt", given.trial_lines)
    # Kernels are compiled at their first use.
    run_ours(short, given.trial_lines, "ours")
    row: dict[str, Any] = {
        "arch": ARCH,
        "lines": given.lines,
        "batch_size": given.batch,
        "raw_bytes": raw.stat().st_size,
    }
    found = {name: [run_ours(raw, given.lines, name)] for name in CANDIDATES}
    if given.original:
        its_raw = raw if its_lines == given.lines else write_log(folder / "some.txt", its_lines)
        ways = ["plain"] if given.quick else list(WAYS)
        trials = {way: run_original(short, given.trial_lines, way) for way in ways}
        for way, trial in trials.items():
            console.print(f"The original, {way}: {trial.total_s:.1f} s for {trial.lines:,} lines")
        way = min(trials, key=lambda way: trials[way].total_s)
        its = run_original(its_raw, its_lines, way)
        its_s = extrapolated_s(trials[way], its, given.lines)
        row |= {
            "original_way": way,
            "original_trials_s": {way: trial.total_s for way, trial in trials.items()},
            "trial_lines": given.trial_lines,
            "original_lines": its_lines,
            **its.to_dict("original"),
            "original_us_per_line": 1e6 * (its.total_s - trials[way].total_s)
            / (its.lines - trials[way].lines),
            "original_extrapolated": its_lines < given.lines,
            "original_all_lines_s": its_s,
        }  # fmt: skip
        found["original"] = [its]
    for name in CANDIDATES:
        found[name].append(run_ours(raw, given.lines, name))
        first, second = sorted(found[name], key=lambda run: run.total_s)
        row |= {**second.to_dict(name), f"{name}_s_min": first.total_s}
        if given.original:
            both = row["original_all_lines_s"] / second.total_s
            best = row["original_all_lines_s"] / first.total_s
            prefix = name.replace("ours", "speedup")
            # The slower of our two runs counts.
            row |= {prefix: both, f"{prefix}_range": [both, best]}
    show(console, row, found)
    return row


def show(console: Console, row: dict[str, Any], found: dict[str, list[EndToEnd]]) -> None:
    """Print a table and how many times the original's speed that is."""
    title = f"Raw text to trained model, {row['lines']:,} lines, batch {row['batch_size']:,}"
    columns = ("lines", "seconds", "prepare", "train", "rest", "loss", "accuracy", "peak")
    grid = table(title, "", *columns)
    for name, runs in found.items():
        for run in runs:
            prepare_s, train_s = run.stages["prepare_s"], run.stages["train_s"]
            seconds = (run.total_s, prepare_s, train_s, run.total_s - prepare_s - train_s)
            cells = [f"{run.lines:,}", *(f"{value:.1f}" for value in seconds)]
            cells += [f"{run.train_loss:.4f}", f"{run.test_accuracy:.4f}"]
            short = name.removeprefix("ours_").replace("_", " ")
            grid.add_row(short, *cells, human_bytes(run.peak_bytes))
    console.print(grid)
    if "speedup" in row:
        if row["original_extrapolated"]:
            console.print(
                f"The original needs {row['original_us_per_line']:.0f} us a line, by which "
                f"{row['lines']:,} lines would take it {row['original_all_lines_s']:.0f} s"
            )
        for name in CANDIDATES:
            prefix = name.replace("ours", "speedup")
            low, high = row[f"{prefix}_range"]
            what = name.replace("_", " ")
            console.print(f"{what}: {low:.1f} to {high:.1f} times the original's speed")
    else:
        console.print("Without the original: give --original CLONE, or DLRM_ORIGINAL")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
