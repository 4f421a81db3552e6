"""Do fewer bits cost accuracy? The same run in several precisions and table storages, over seeds.

    python benchmarks/precision.py --recipe criteo-kaggle --data DATASET --optim rowwise_adagrad

The verdict compares means with the spread between seeds: inside it, the difference is noise.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

from dlrm.bench.results import append
from dlrm.commands.train import train
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn.embedding import Storage
from dlrm.nn.tables import TablesConfig
from dlrm.optim.config import OptimConfig
from dlrm.recipes import find

METRICS = ("auc", "log_loss")
VARIANTS: dict[str, tuple[Literal["fp32", "bf16"], Storage]] = {
    "fp32": ("fp32", "fp32"),
    "bf16": ("bf16", "fp32"),
    "bf16, tables split": ("bf16", "split"),
    "bf16, tables bf16": ("bf16", "bf16"),
}
"""Name of a variant -> precision of the MLPs, storage of the tables; the first is compared with."""


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--recipe", default="demo")
    flags.add_argument("--data", default=None, help="instead of the recipe's")
    flags.add_argument("--optim", default=None, help="instead of the recipe's, with --lr")
    flags.add_argument("--lr", type=float, default=0.01)
    flags.add_argument("--warmup", type=int, default=0, help="steps, with --optim")
    flags.add_argument("--batch", type=int, default=None, help="instead of the recipe's")
    flags.add_argument("--seeds", type=int, default=5)
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--quick", action="store_true", help="a few rows: does it work at all?")
    given = flags.parse_args(list(words))
    if given.quick:
        given.data, given.seeds = "clicks:2000", 2
    config = replace(find(given.recipe)(), baseline=False)
    if given.data:
        config = replace(config, data=given.data)
    if given.optim:
        config = replace(
            config, optim=OptimConfig(name=given.optim, lr=given.lr, warmup_steps=given.warmup)
        )
    if given.batch:
        config = replace(config, loader=replace(config.loader, batch_size=given.batch))
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.seeds):
            for variant, (precision, storage) in VARIANTS.items():
                assert isinstance(config.model, DLRMConfig)
                run = replace(
                    config,
                    precision=precision,
                    model=replace(config.model, tables=TablesConfig(storage=storage)),
                    seed=seed,
                    loader=replace(config.loader, seed=seed),
                )
                with redirect_stdout(StringIO()):
                    result = train(run, run=Path(folder) / f"{variant}-{seed}").to_dict()
                values = found.setdefault(variant, {metric: [] for metric in METRICS})
                for metric in METRICS:
                    values[metric].append(result[metric])
    baseline = found["fp32"]
    for metric in METRICS:
        low, high = min(baseline[metric]), max(baseline[metric])
        for variant, values in found.items():
            v = values[metric]
            where = "inside" if low <= mean(v) <= high else "OUTSIDE"
            seeds = " ".join(f"{x:.5f}" for x in v)
            print(
                f"{metric} {variant}: {mean(v):.5f} +- {stdev(v):.5f}, {where} fp32's "
                f"{low:.5f} to {high:.5f} ({seeds})"
            )
    row = {
        "recipe": given.recipe,
        "data": Path(config.data).name,
        "optim": asdict(config.optim),
        "batch_size": config.loader.batch_size,
        "variants": found,
    }
    print(f"written to {append('precision', row, given.out)}")


if __name__ == "__main__":
    main(sys.argv[1:])
