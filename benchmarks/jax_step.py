"""How fast is the training step in JAX, beside that in PyTorch?

    python benchmarks/jax_step.py

The paper's Criteo model on one process and in fp32, on the same batches, round by round: batch to
loss, as `dlrm train` takes it in either framework. No claim of speed is made for JAX: XLA's
products on CPUs are slower than those of oneDNN.
"""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from dlrm.bench.arch import ARCHS
from dlrm.bench.batches import rotation
from dlrm.bench.local_step import LocalStep
from dlrm.bench.results import append
from dlrm.bench.timer import beside, figures, in_turn, interleave, round_steps
from dlrm.bench.watch import Watch

OPTIMIZERS = ("sgd", "adagrad")
COMPARED_STEPS = 5
"""First steps whose losses are compared, relatively: both must do the same work."""


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--rows-scale", type=float, default=1.0)
    flags.add_argument("--rounds", type=int, default=11)
    flags.add_argument("--quick", action="store_true", help="tiny tables: does it work at all?")
    given = flags.parse_args(list(words))
    if find_spec("jax") is None:
        print("Without JAX: pip install 'opendlrm[jax]'")
        return
    import jax

    from dlrm.runtimes.jax.feed import Feed
    from dlrm.runtimes.jax.losses import bce
    from dlrm.runtimes.jax.step import JaxStep

    sizes, rounds, scale = (128, 2048, 16384), given.rounds, given.rows_scale
    if given.quick:
        sizes, rounds, scale = (8,), 2, 0.0005
    arch = ARCHS["criteo-kaggle"].scaled(scale)
    print(f"jax {jax.__version__}, {arch.rows_total:,} rows")
    for optimizer in OPTIMIZERS:
        ours, twin = LocalStep(arch, "fp32", optimizer), LocalStep(arch, "fp32", optimizer)
        in_jax = JaxStep(twin.model, twin.train.optimizer, bce)  # pyright: ignore[reportArgumentType]
        feed = Feed(ours.model, distinct=optimizer != "sgd")
        for size in sizes:
            batches = rotation(arch.schema, size, "uniform")
            difference = max(
                abs(in_jax(batch).item() / ours.step(batch) - 1)
                for batch in islice(batches, COMPARED_STEPS)
            )
            steps = round_steps(size)
            with Watch() as watch:
                timed = interleave(
                    {
                        "ours": in_turn(ours.step, batches, steps),
                        "jax": in_turn(lambda b, s=in_jax: s(b).item(), batches, steps),
                        "feed": in_turn(feed, batches, steps),
                    },
                    rounds=rounds,
                )
            torch_step, jax_step, feeding = (timing.per(steps) for timing in timed.values())
            values = {
                "jax": jax.__version__,
                "batch_size": size,
                "optimizer": optimizer,
                "precision": "fp32",
                "ids": "uniform",
                "rows_scale": scale,
                "rounds": rounds,
                "steps": steps,
                **figures(torch_step),
                **figures(jax_step),
                # Ids checked, padded and, for Adagrad, sorted, before JAX begins.
                **figures(feeding),
                **beside(torch_step, jax_step),
                "loss_difference": difference,
                **watch.seen.to_dict(),
            }
            append("jax_step", values, given.out)
            print(
                f"{optimizer}, batch {size}: PyTorch {torch_step.median * 1e3:.2f} ms, "
                f"JAX {jax_step.median * 1e3:.2f} ms (of which {feeding.median * 1e3:.2f} ms are "
                f"the feed); losses differ by {difference:.1e} of theirs; {values['verdict']}"
            )
            if warning := watch.seen.warning:
                print(f"Doubtful: {warning}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
