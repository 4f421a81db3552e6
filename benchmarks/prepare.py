"""How fast is preparing, beside the original's preprocessing, and does memory stay flat?

    python benchmarks/prepare.py --original CHECKOUT

CHECKOUT is a work tree of facebookresearch/dlrm (or the variable DLRM_ORIGINAL); without it only
this project is measured. Each
measurement is a process of its own, so that its peak memory is its own too; both read the same
lines, written in Criteo's form with Criteo's cardinalities and values below 80000000, above which
the original fails. The goal is 300,000 lines/s and twenty times the original. Beside them stand the
same without kernels, as on a machine that has no compiler, and reading the log alone, which is what
no preparation can be faster than.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console

from dlrm.bench.results import append
from dlrm.bench.timer import Timing, interleave, ratio, verdict
from dlrm.terminal import human_bytes, table

LINES, SMALL, LARGE, ROUNDS = 200_000, 500_000, 2_000_000, 5
# Distinct values of C1 ... C26 in Criteo Kaggle.
VALUES = """1460 583 10131227 2202608 305 24 12517 633 3 93145 5683 8351593 3194 27 14992 5461306
10 5652 2173 4 7046547 18 15 286181 105 142572"""


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--original", type=Path, default=os.environ.get("DLRM_ORIGINAL"))
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--rounds", type=int, default=ROUNDS)
    flags.add_argument("--quick", action="store_true", help="a few rows: does it work at all?")
    given = flags.parse_args(list(words))
    lines, small_lines, large_lines = LINES, SMALL, LARGE
    if given.quick:
        lines, small_lines, large_lines, given.rounds = 1_000, 1_000, 2_000, 1
    shown, results = table("Preparing Criteo", "what", "lines", "lines/s", "peak memory"), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = write_lines(folder / "train.txt", lines)
        runs: dict[str, list[dict[str, float]]] = {"opendlrm": [], "without kernels": []}
        candidates = {
            "opendlrm": lambda: runs["opendlrm"].append(child("ours", raw)),
            "without kernels": lambda: runs["without kernels"].append(child("polars", raw)),
        }
        if given.original:
            checkout, runs["original"] = Path(given.original).resolve(), []
            candidates["original"] = lambda: runs["original"].append(
                child("original", raw, str(checkout))
            )
        interleave(candidates, rounds=given.rounds)
        for who in candidates:
            # The first one was the warm-up.
            add(results, shown, who, lines, runs[who][1:])
        # What the processes measured themselves, without their start.
        timings = {
            who: Timing(who, [run["duration_s"] for run in each[1:]]) for who, each in runs.items()
        }
        if given.original:
            middle, low, high = ratio(timings["original"], timings["opendlrm"])
            results.append({"what": "ratio", "ratio": middle, "low": low, "high": high})
        large = write_lines(folder / "large.txt", large_lines)
        small = write_lines(folder / "small.txt", small_lines)
        for _ in range(2):
            for raw, lines in ((small, small_lines), (large, large_lines)):
                for who, what in (("ours", "opendlrm"), ("read", "reading alone")):
                    add(results, shown, what, lines, [child(who, raw)])
            add(results, shown, "without kernels", large_lines, [child("polars", large)])
    Console().print(shown)
    if given.original:
        print(verdict(timings["opendlrm"], timings["original"]))
    written = [append("prepare", result, given.out) for result in results]
    print(f"written to {written[-1]}")


def add(
    results: list[dict[str, Any]], shown: Any, who: str, lines: int, runs: list[dict[str, float]]
) -> None:
    """Keep and show the measurements of one candidate."""
    speeds = [lines / run["duration_s"] for run in runs]
    peak = max(run["peak_rss_bytes"] for run in runs)
    middle = float(np.median(speeds))
    spread = f" ({min(speeds):,.0f} to {max(speeds):,.0f})" if len(speeds) > 1 else ""
    shown.add_row(who, f"{lines:,}", f"{middle:,.0f}{spread}", human_bytes(peak))
    results.append(
        {
            "what": who,
            "lines": lines,
            "lines_per_s": middle,
            "lines_per_s_low": min(speeds),
            "lines_per_s_high": max(speeds),
            "rounds": len(speeds),
            "cpu_s": float(np.median([run["cpu_s"] for run in runs])),
            "peak_rss_bytes": peak,
            "seed": 0,
        }
    )


def write_lines(path: Path, lines: int) -> Path:
    """Write Criteo text whose values have a long tail; half a million lines at a time."""
    rng = np.random.default_rng(0)
    with path.open("wb") as stream:
        for start in range(0, lines, 500_000):
            n = min(500_000, lines - start)
            columns: dict[str, Any] = {"label": (rng.random(n) < 0.25).astype(np.uint8)}
            for number in range(13):
                counts = (rng.pareto(0.7, n) * 3).clip(0, 60_000).astype(np.int64)
                columns[f"I{number}"] = _missing(pl.Series(counts - (number == 1)), rng, 0.2)
            for number, values in enumerate(map(int, VALUES.split())):
                ids = values ** rng.random(n) if values < 10**5 else rng.random(n) ** 2 * values
                mixed = (ids.astype(np.uint64) * 2654435761 + number * 77_777) & 0x7FFFFFFF
                texts = mixed.astype(">u4").tobytes().hex()
                column = pl.Series(np.frombuffer(texts.encode(), "S8").astype("U8"))
                columns[f"C{number}"] = _missing(column, rng, 0.03)
            pl.DataFrame(columns).write_csv(stream, separator="\t", include_header=False)
    return path


def _missing(column: pl.Series, rng: np.random.Generator, rate: float) -> pl.Series:
    return column.set(pl.Series(rng.random(len(column)) < rate), None)


def child(who: str, raw: Path, *more: str) -> dict[str, float]:
    """Prepare a file in a process of its own; return its seconds and its peak memory."""
    with tempfile.TemporaryDirectory(dir=raw.parent) as folder:
        command = [sys.executable, __file__, "--child", who, str(raw), folder, *more]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def ours(raw: Path, folder: Path) -> float:
    from dlrm.data.prepare import prepare
    from dlrm.data.sources.criteo import CriteoSource

    began = time.perf_counter()
    prepare(CriteoSource(raw), folder / "out")
    return time.perf_counter() - began


def polars(raw: Path, folder: Path) -> float:
    os.environ["DLRM_KERNELS"] = "reference"
    return ours(raw, folder)


def read(raw: Path, folder: Path) -> float:
    from dlrm.data.sources.criteo import CriteoSource

    began = time.perf_counter()
    for _ in CriteoSource(raw).read():
        pass
    return time.perf_counter() - began


def original(raw: Path, folder: Path, checkout: str) -> float:
    sys.path.insert(0, checkout)
    import data_utils  # pyright: ignore[reportMissingImports]

    copy = folder / "train.txt"
    os.link(raw, copy)
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        data_utils.getCriteoAdData(str(copy), "processed", data_split="train", criteo_kaggle=True)
    return time.perf_counter() - began


def peak_rss_bytes() -> int:
    """Return the peak memory of this process since it began, its parent's left out."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status: peak memory is measured on Linux only")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _, _, who, raw_name, folder_name, *rest = sys.argv
        measure = {"ours": ours, "polars": polars, "read": read, "original": original}[who]
        seconds = measure(Path(raw_name), Path(folder_name), *rest)
        cpu_s = sum(os.times()[:2])
        print(
            json.dumps({"duration_s": seconds, "cpu_s": cpu_s, "peak_rss_bytes": peak_rss_bytes()})
        )
    else:
        main(sys.argv[1:])
