"""What do several processes cost, beside one process and beside TorchRec?

    python benchmarks/parallel.py

Two processes of one thread against one process of two threads, and against TorchRec's engine in the
same loop (where the extra `torchrec` is installed), round by round; and the exchange of vectors
alone beside what one connection carries. Goals: 0.9 times the speed of
one process at 16384, where TorchRec has 1.06, and at 256, where it has 0.51; never slower than it.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

import exchange
from dlrm import terminal
from dlrm.bench import timer
from dlrm.bench.results import append
from workers import Task, Workers

ROUND_SAMPLES = 65_536
MOST_STEPS = 40
EXCHANGED, DIM, TABLES = (256, 2048, 16384, 131072), 16, 26
"""Samples of a batch of two processes; each sends half of the tables of half of the samples."""


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--batch", default="256,2048,16384")
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument("--rows-scale", type=float, default=0.1)
    flags.add_argument("--precision", default="fp32,bf16")
    flags.add_argument("--quick", action="store_true", help="tiny tables: does it work at all?")
    given = flags.parse_args(list(words))
    if given.quick:
        given.batch, given.rounds, given.rows_scale, given.precision = "8", 1, 0.0005, "fp32"
    console = Console()
    engines = ["dlrm"]
    if find_spec("torchrec"):
        engines.append("torchrec")
    else:
        console.print("Without TorchRec: it is not installed")
    grid = terminal.table(None, "batch", "ms", "speed of one process", "verdict")
    path = None
    for precision in given.precision.split(","):
        for size in map(int, given.batch.split(",")):
            base = Task(
                procs=1,
                threads=2,
                batch_size=size,
                precision=precision,
                rows_scale=given.rows_scale,
            )
            tasks = {"one": base}
            for engine in engines:
                tasks[engine] = Task(**{**vars(base), "procs": 2, "threads": 1, "engine": engine})
            steps = max(2, min(MOST_STEPS, ROUND_SAMPLES // size))
            with ExitStack() as stack:
                workers = {name: stack.enter_context(Workers(task)) for name, task in tasks.items()}
                took = timer.interleave(
                    {
                        name: lambda those=those, n=steps: those.steps(n)
                        for name, those in workers.items()
                    },
                    rounds=given.rounds,
                    warmup=2,
                )
                said = workers["dlrm"].steps(steps)
            each = {name: timing.per(steps) for name, timing in took.items()}
            row = {"batch_size": size, "precision": precision, "rows_scale": given.rows_scale}
            for name, timing in each.items():
                row |= timer.figures(timing)
                speed, low, high = timer.ratio(each["one"], timing)
                row |= {f"{name}_speed": speed, f"{name}_speed_interval": [low, high]}
                verdict = "" if name == "one" else timer.verdict(timing, each["one"])
                if name == "torchrec":
                    verdict = timer.verdict(each["dlrm"], timing)
                    row["against_torchrec"] = timer.ratio(timing, each["dlrm"])
                grid.add_row(
                    f"{size} {precision} {name}",
                    f"{timing.median * 1e3:.2f}",
                    f"{speed:.2f} ({low:.2f} to {high:.2f})",
                    verdict,
                )
            row["sent_bytes_per_sample"] = sum(s["sent_bytes"] for s in said) / steps / size
            row["waited_share"] = max(s["waited_s"] for s in said) / steps / each["dlrm"].median
            path = append("parallel", row, given.out)
    console.print(grid)
    sizes = [1664] if given.quick else [size * DIM * TABLES // 4 * 4 for size in EXCHANGED]
    grid = terminal.table(None, "exchange, both ways", "ms", "bound, ms", "of the bound")
    for row in exchange.measure(sizes):
        exchange_s, bound_s = row["exchange_s"], row["bound_s"]
        grid.add_row(
            terminal.human_bytes(row["bytes"]),
            f"{exchange_s * 1e3:.2f}",
            f"{bound_s * 1e3:.2f}",
            f"{bound_s / exchange_s:.0%}",
        )
        path = append("parallel", {"exchange": row}, given.out)
    console.print(grid)
    console.print(f"Saved: {path}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
