r"""What do fewer bits cost? Every variant of `dlrm bench numerics`, with more seeds and rows.

    python benchmarks/numerics.py [RECIPE | DATA] [--seeds 10] [--FLAG VALUE ...]

All flags of `dlrm bench numerics` hold. Without any it is demo on 600,000 generated clicks, 35%
of them to test on. For Criteo's rows, which nobody may pass on:

    python benchmarks/numerics.py criteo-kaggle --data head72k.tsv.gz --optim.name rowwise_adagrad \
        --optim.lr 0.01 --optim.warmup-steps 50 --loader.batch-size 512 \
        --prepare.split chronological --prepare.fractions 0.75 0.05 0.2

Accuracy does not depend on what else runs; speed does.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dlrm.bench.results import save
from dlrm.commands.bench.numerics import main as numerics
from dlrm.terminal import out

DEMO = ("demo", "--data", "clicks:600000", "--loader.batch-size", "512")
LITTLE = ("demo", "--data", "clicks:3000", "--variants", "int8")


def main(words: Sequence[str] = ()) -> int:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--seeds", type=int, default=10)
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--quick", action="store_true", help="a few rows: does it work at all?")
    given, rest = flags.parse_known_args(list(words))
    seeds = 2 if given.quick else given.seeds
    what = LITTLE if given.quick else rest or DEMO
    found = numerics([*what, "--seeds", str(seeds)], "benchmarks/numerics.py")
    out.print(found)
    print(f"written to {save(found.rows, given.out)}")
    return found.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
