"""Does loading cost anything? Training on prepared data against the same batches held in memory.

Both train the criteo-kaggle model on rows of the generated log; the goal is a ratio below 1.05.
"""

import tempfile
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch

from dlrm import optim
from dlrm.batch import Batch
from dlrm.bench.timer import interleave, ratio, save, verdict
from dlrm.data.clicks import ClicksSource
from dlrm.data.loader import Loader
from dlrm.data.prepare import prepare
from dlrm.recipes import find
from dlrm.training.loss import bce

ROWS = 300_000
ROUNDS = 7


def main() -> None:
    config = find("criteo-kaggle")()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        source = ClicksSource(ROWS)
        dataset = prepare(source, Path(folder) / "clicks", split="chronological").dataset
        for batch_size in (128, 2048):
            loader = Loader(dataset.split("train"), batch_size=batch_size, shuffle=True)
            model = config.model.build(dataset.schema)
            optimizer = optim.build(config.optim.name, model.parameters(), config.optim.lr)
            steps = min(len(loader), 131_072 // batch_size)
            in_memory = [
                _copy(batch) for batch, _ in zip(loader.epoch(), range(steps), strict=False)
            ]

            def train(batches: Iterable[Batch], model=model, optimizer=optimizer) -> None:
                for batch in batches:
                    bce(model(batch), batch.labels).backward()
                    optimizer.step()
                    optimizer.zero_grad()

            def prepared(loader=loader, train=train, steps=steps) -> None:
                epoch = loader.epoch()
                train(islice(epoch, steps))
                epoch.close()

            def memory(train=train, in_memory=in_memory) -> None:
                train(in_memory)

            timings = interleave({"prepared": prepared, "memory": memory}, rounds=ROUNDS)
            middle, low, high = ratio(timings["prepared"], timings["memory"])
            print(f"batch {batch_size}: {verdict(timings['prepared'], timings['memory'])}")
            path = save(
                "loading",
                {
                    "batch_size": batch_size,
                    "steps": steps,
                    "prepared_s": timings["prepared"].median,
                    "memory_s": timings["memory"].median,
                    "ratio": middle,
                    "ratio_low": low,
                    "ratio_high": high,
                    "samples_per_s": steps * batch_size / timings["prepared"].median,
                },
            )
    print(f"written to {path}")


def _copy(batch: Batch) -> Batch:
    # A slice would keep the loader's whole window alive, and share its cache lines.
    return Batch(batch.dense.clone(), batch.ids.clone(), batch.labels.clone())


if __name__ == "__main__":
    main()
