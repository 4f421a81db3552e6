"""Does loading cost anything? Training on prepared data against the same batches held in memory.

    python benchmarks/loading.py

Both train the criteo-kaggle model on rows of the generated log, in the precision that training
takes by default; the goal is a ratio below 1.05 and less than 3% of the time waiting for data.
"""

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import torch

from dlrm.batch import Batch
from dlrm.bench.local_step import fresh_step
from dlrm.bench.results import append
from dlrm.bench.timer import interleave, ratio, verdict
from dlrm.data.loader import Loader
from dlrm.data.options import PrepareConfig
from dlrm.data.prepare import prepare
from dlrm.data.sources.clicks import ClicksSource
from dlrm.nn import precision
from dlrm.ops.memory import keep_freed_memory
from dlrm.recipes import find

ROWS, ROUNDS, SAMPLES = 300_000, 7, 131_072
"""Of the log; of each candidate; of a round."""


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--quick", action="store_true", help="a few rows: does it work at all?")
    given = flags.parse_args(list(words))
    rows, rounds, samples = (5_000, 2, 2_048) if given.quick else (ROWS, ROUNDS, SAMPLES)
    config = find("criteo-kaggle")()
    resolved = precision.resolve(config.precision)
    keep_freed_memory()
    torch.manual_seed(0)
    path = given.out
    with tempfile.TemporaryDirectory() as folder:
        log = ClicksSource(rows)
        dataset = prepare(
            log, Path(folder) / "clicks", PrepareConfig(split="chronological")
        ).dataset
        for batch_size in (128, 2048):
            loader = Loader(dataset.split("train"), batch_size=batch_size, shuffle=True)
            step = fresh_step(config, dataset.schema)
            steps = min(len(loader), samples // batch_size)
            in_memory = [
                _copy(batch) for batch, _ in zip(loader.epoch(), range(steps), strict=False)
            ]
            waited: list[float] = []

            def train(batches: Iterable[Batch], step=step) -> None:
                for batch in batches:
                    step(batch)

            def prepared(loader=loader, train=train, steps=steps, waited=waited) -> None:
                before = loader.waited_s
                epoch = loader.epoch()
                train(islice(epoch, steps))
                epoch.close()
                waited.append(loader.waited_s - before)

            def memory(train=train, in_memory=in_memory) -> None:
                train(in_memory)

            timings = interleave({"prepared": prepared, "memory": memory}, rounds=rounds)
            middle, low, high = ratio(timings["prepared"], timings["memory"])
            # The first was the warm-up.
            share = sum(waited[1:]) / sum(timings["prepared"].seconds)
            print(f"batch {batch_size}: {verdict(timings['prepared'], timings['memory'])}")
            print(f"batch {batch_size}: {share:.1%} of the time waiting for data")
            row = {
                "batch_size": batch_size,
                "precision": resolved,
                "steps": steps,
                "prepared_s": timings["prepared"].median,
                "memory_s": timings["memory"].median,
                "ratio": middle,
                "ratio_low": low,
                "ratio_high": high,
                "waited_share": share,
                "samples_per_s": steps * batch_size / timings["prepared"].median,
            }
            path = append("loading", row, given.out)
    print(f"Saved: {path}")


def _copy(batch: Batch) -> Batch:
    # A slice would keep the loader's whole window alive, and share its cache lines.
    return Batch(batch.dense.clone(), batch.ids.clone(), batch.labels.clone())


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
