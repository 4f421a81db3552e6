"""How fast is the training step, beside the original's and the machine's limit?

    python benchmarks/training.py

The original is measured beside where the variable DLRM_ORIGINAL names a clone of
facebookresearch/dlrm, and FBGEMM's tables where fbgemm-gpu-cpu can be imported. Goals: bf16 at 5, 6
and 6 times the original for batches of 128, 2048 and 16384; fp32 at 2.5 times at 2048; the tables
at 8, 5 and 3 times 26 nn.EmbeddingBag and faster than FBGEMM; 70% of the limit at 2048.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from dlrm.commands.bench.peers import bench_embedding as embedding
from dlrm.commands.bench.peers import bench_original as beside
from dlrm.nn.embedding import Storage
from dlrm.nn.precision import ComputeDtype
from dlrm.planning.work import Ids

STEPS: list[tuple[Ids, ComputeDtype, Storage, bool]] = [
    ("uniform", "bf16", "fp32", True),
    ("uniform", "fp32", "fp32", False),
    ("zipf", "bf16", "fp32", False),
    ("zipf", "fp32", "fp32", False),
    ("uniform", "bf16", "split", False),
    ("uniform", "bf16", "bf16", False),
]
"""Training steps: ids, precision, storage of the tables, whether also with loading."""
TABLES: list[tuple[Ids, str, Storage]] = [
    *(("uniform", optim, "fp32") for optim in ("sgd", "adagrad", "rowwise_adagrad", "adam")),
    *(("zipf", optim, "fp32") for optim in ("sgd", "adagrad", "rowwise_adagrad", "adam")),
    ("uniform", "sgd", "split"),
    ("uniform", "sgd", "bf16"),
]
"""Tables alone: ids, optimizer, storage."""


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--batch", default="128,2048,16384")
    flags.add_argument("--rounds", type=int, default=11)
    flags.add_argument("--rows-scale", type=float, default=1.0)
    flags.add_argument("--quick", action="store_true", help="tiny tables: does it work at all?")
    given = flags.parse_args(list(words))
    if given.quick:
        given.batch, given.rounds, given.rows_scale = "8", 1, 0.0005
    size = {"batch": given.batch, "rounds": given.rounds, "rows_scale": given.rows_scale}
    named = os.environ.get("DLRM_ORIGINAL")
    original = Path(named) if named else None
    console, path = Console(), given.out
    if original is None:
        console.print("Without the original: DLRM_ORIGINAL names no clone")
    for ids, precision, storage, loading in STEPS:
        steps = beside(
            original,
            precision=precision,
            ids=ids,
            storage=storage,
            loading=loading,
            **size,
        )
        console.print(steps)
        path = steps.save(given.out)
    for ids, optim, storage in TABLES:
        tables = embedding(ids=ids, optim=optim, storage=storage, **size)
        console.print(tables)
        path = tables.save(given.out)
    console.print(f"Saved: {path}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
