"""Figure 6 of the paper on this machine: the share of each operator, the time of all its samples.

    python benchmarks/figure6.py

8 categorical features with tables of 1M x 64, 512 dense features, 2,048,000 samples in batches of
1,024; published: 256 s on a dual-socket Xeon, 62 s on a V100. The profile is that of `dlrm bench
train figure6` and `dlrm bench infer figure6`; then all samples are trained on, batch after batch,
and timed as a whole.
"""

import argparse
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from rich.console import Console

from dlrm import terminal
from dlrm.bench import results
from dlrm.bench.arch import ARCHS
from dlrm.bench.subject import Subject
from dlrm.bench.watch import Watch
from dlrm.commands.bench.step import bench_infer, bench_train, subject
from dlrm.training.config import TrainConfig

NAME = "figure6"


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--html", type=Path, help="also write the page")
    flags.add_argument("--precision", default="fp32,bf16")
    flags.add_argument("--rounds", type=int, default=11)
    flags.add_argument("--rows-scale", type=float, default=1.0)
    flags.add_argument("--samples", type=int, default=ARCHS[NAME].samples)
    flags.add_argument("--quick", action="store_true", help="tiny tables: does it work at all?")
    given = flags.parse_args(list(words))
    if given.quick:
        given.rounds, given.rows_scale, given.samples = 2, 0.0005, 2048
    console = Console()
    path = given.out
    page = []
    for precision in given.precision.split(","):
        config = TrainConfig(model=ARCHS[NAME].model, precision=precision)
        for bench in (bench_train, bench_infer):
            found = bench(NAME, config, rounds=given.rounds, rows_scale=given.rows_scale)
            console.print(found)
            rows = found.rows()
            page += [found.machine_row(), *rows]
            path = results.save(rows, given.out)
        of, (size,) = subject(NAME, config, rows_scale=given.rows_scale)
        took_s = whole(of, size, given.samples)
        console.print(f"{given.samples:,} samples in {precision}: {took_s:.1f} s")
        row = {
            "arch": NAME,
            "precision": precision,
            "batch_size": size,
            "samples": given.samples,
            "whole_s": took_s,
            "published": ARCHS[NAME].published_s,
        }
        path = results.save([results.row(NAME, row)], given.out)
    if given.html is not None:
        from dlrm.reporting import bench as report

        report.write(given.html, page)
    console.print(f"Saved: {path}")


def whole(of: Subject, size: int, samples: int) -> float:
    """Train on so many samples, batch after batch, and return the seconds."""
    train, batches = of.build(), of.batches(size)
    steps = samples // size
    for batch in batches[:2]:
        train(batch)
    with terminal.progress() as bar, Watch() as watch:
        task = bar.add_task("training", total=steps)
        began = time.perf_counter()
        for batch in islice(cycle(batches), steps):
            train(batch)
            bar.advance(task)
        took_s = time.perf_counter() - began
    if warning := watch.seen.warning:
        terminal.err.print(f"Doubtful: {warning}")
    return took_s


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
