"""What do single operators take, and how near are they to this machine's limits?

    python benchmarks/operators.py

One setting is swept at a time, from batch 2048, 8 tables of 1M x 64, one uniform id a sample and
table, fp32, SGD: the same as `dlrm bench ops` with that flag.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dlrm.bench import results
from dlrm.commands.bench.ops import bench_ops as ops

BASE = {"batch": "2048", "rows": "1M", "dim": "64", "precision": "fp32"}
QUICK = {"batch": "512", "rows": "1k", "dim": "16", "widths": "8-4"}
"""Instead of it, with the first two values of each sweep."""
QUICK_SWEEPS = "batch,ids,optim"
TABLES = ("lookup", "update")
SWEEPS: dict[str, tuple[tuple[str, ...], str]] = {
    "batch": ((), "128,512,2048,8192,32768"),
    "tables": ((*TABLES, "interaction", "loader", "exchange"), "2,8,26"),
    "rows": (TABLES, "1k,10k,100k,1M,4M"),
    "dim": ((*TABLES, "interaction", "exchange"), "16,32,64,128"),
    "pooling": ((*TABLES, "loader"), "1,4,16,64"),
    "ids": (TABLES, "uniform,zipf"),
    "precision": (("interaction", "mlp"), "fp32,bf16"),
    "storage": (TABLES, "fp32,bf16,split"),
    "optim": (("update", "dense_update"), "sgd,adagrad,rowwise_adagrad,adam"),
    "widths": (("mlp", "dense_update"), "13-512-256-64,512-256-64,1024-1024-512-256"),
    "threads": ((*TABLES, "interaction", "mlp", "loss", "dense_update"), "1,2"),
}
"""Setting -> operators (none for all), and the values that it takes."""


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--only", default=",".join(SWEEPS), help="settings, separated by commas")
    flags.add_argument("--rounds", type=int, default=11)
    flags.add_argument("--quick", action="store_true", help="tiny ones: does it work at all?")
    given = flags.parse_args(list(words))
    if given.quick:
        given.only, given.rounds = QUICK_SWEEPS, 2
    path = given.out
    for setting in given.only.split(","):
        operators, values = SWEEPS[setting]
        asked: dict[str, Any] = {**BASE, setting: values}
        if given.quick:
            asked = {**QUICK, setting: ",".join(values.split(",")[:2])}
        found = ops(operators, rounds=given.rounds, **asked)
        Console().print(found)
        path = results.save(found.rows, given.out)
    Console().print(f"Saved: {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
