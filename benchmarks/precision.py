"""Does bfloat16 cost accuracy? The same run in fp32 and bf16, over seeds.

    python benchmarks/precision.py --recipe criteo-kaggle --data DATASET --optim rowwise_adagrad

The verdict compares means with the spread between seeds: inside it, the difference is noise.
"""

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from statistics import mean, stdev

from dlrm.bench.timer import save
from dlrm.commands.train import train
from dlrm.optim.config import OptimConfig
from dlrm.recipes import find

METRICS = ("auc", "log_loss")


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--recipe", default="demo")
    flags.add_argument("--data", default=None, help="instead of the recipe's")
    flags.add_argument("--optim", default=None, help="instead of the recipe's, with --lr")
    flags.add_argument("--lr", type=float, default=0.01)
    flags.add_argument("--batch", type=int, default=None, help="instead of the recipe's")
    flags.add_argument("--seeds", type=int, default=5)
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    given = flags.parse_args(list(words))
    config = replace(find(given.recipe)(), baseline=False)
    if given.data:
        config = replace(config, data=given.data)
    if given.optim:
        config = replace(config, optim=OptimConfig(name=given.optim, lr=given.lr))
    if given.batch:
        config = replace(config, loader=replace(config.loader, batch_size=given.batch))
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.seeds):
            for precision in ("fp32", "bf16"):
                run = replace(
                    config,
                    precision=precision,
                    seed=seed,
                    loader=replace(config.loader, seed=seed),
                )
                with redirect_stdout(StringIO()):
                    result = train(run, run=Path(folder) / f"{precision}-{seed}").to_dict()
                values = found.setdefault(precision, {metric: [] for metric in METRICS})
                for metric in METRICS:
                    values[metric].append(result[metric])
    row = {"recipe": given.recipe, "data": Path(config.data).name, "seeds": given.seeds}
    for metric in METRICS:
        for precision, values in found.items():
            v = values[metric]
            print(
                f"{metric} {precision}: {mean(v):.5f} +- {stdev(v):.5f}  {[round(x, 5) for x in v]}"
            )
            row[f"{precision}_{metric}"] = v
        low, high = min(found["fp32"][metric]), max(found["fp32"][metric])
        middle = mean(found["bf16"][metric])
        inside = low <= middle <= high
        row[f"{metric}_inside_the_band"] = inside
        print(
            f"{metric}: bf16's mean {middle:.5f} is {'inside' if inside else 'OUTSIDE'} fp32's "
            f"band {low:.5f} to {high:.5f}"
        )
    print(f"written to {save('precision', row, given.out)}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
