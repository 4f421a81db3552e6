"""How fast a model would train on this machine: a few real steps, on tables of bearable size.

A step takes as long on tables of a gigabyte as on larger ones: either lie far outside of any cache.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from dlrm.batch import Batch
from dlrm.bench.batches import draw_ids
from dlrm.data.loader import Loader
from dlrm.data.store import Dataset
from dlrm.files import write_tensors
from dlrm.metrics import Metrics
from dlrm.nn import precision
from dlrm.ops.memory import keep_freed_memory
from dlrm.parallel.tables import contents
from dlrm.schema import Schema
from dlrm.terminal import progress
from dlrm.training.config import TrainConfig
from dlrm.training.loop import compute_loss
from dlrm.training.rates import Rates

LIMIT_BYTES = 1_000_000_000
"""Of tables and optimizer state that are measured on."""
TRAIN_S, EVAL_S, WARM_S = 4.0, 1.0, 0.7
STRETCHES = 15
"""Of time, whose median counts: others may use the machine meanwhile."""
SCORED = 200_000
WRITTEN_BYTES = 64_000_000
FILES = 4
"""Of a checkpoint."""


def measure(
    config: TrainConfig, schema: Schema, dataset: Dataset | None, *, batch_size: int
) -> Rates:
    """Measure for some seconds.

    Args:
        config: Of the run.
        schema: Of its data.
        dataset: Its data, or None for ids by a power law.
        batch_size: Samples of a step.

    """
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    torch.manual_seed(config.seed)
    smaller = capped(config, schema)
    with progress() as bar:
        task = bar.add_task("measuring", total=5)
        model = config.model.build(smaller, precision.resolve(config.precision))
        optimizer = config.optim.build(model.parameters())
        bar.advance(task)
        batches = _batches(dataset, smaller, batch_size)
        seen = Metrics()

        def step() -> None:
            batch = next(batches)
            logits = model(batch)
            value = compute_loss(config.loss, logits, batch.labels)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            seen.update(logits.detach().numpy(), batch.labels.numpy())
            value.item()

        _repeat(step, WARM_S)
        bar.advance(task)
        step_s = _repeat(step, TRAIN_S)
        bar.advance(task)
        size = min(config.eval.batch_size, 16384)
        evaluation_s = _evaluation_s(model, _batches(dataset, smaller, size)) / size
        bar.advance(task)
        save_s, write_s = _write_s()
        return Rates(
            step_s=step_s,
            evaluation_s=evaluation_s,
            metrics_s=_metrics_s(),
            save_s=save_s,
            write_s=write_s,
            capped=smaller != schema,
            ids="zipf" if dataset is None else "data",
        )


def capped(config: TrainConfig, schema: Schema) -> Schema:
    """Return the schema with large tables cut off, so that all together are of bearable size."""

    def kept_bytes(most: int) -> int:
        with torch.device("meta"):
            model = config.model.build(_cut(schema, most))
        kept = contents(model, config.optim.name)
        return kept.model_bytes + kept.state_bytes

    most = max(schema.rows, default=0)
    while most > 1000 and kept_bytes(most) > LIMIT_BYTES:
        most = most * 4 // 5
    return _cut(schema, most)


def _cut(schema: Schema, most: int) -> Schema:
    features = (replace(f, rows=min(f.rows, most)) for f in schema.categorical)
    return replace(schema, categorical=tuple(features))


def _batches(dataset: Dataset | None, schema: Schema, size: int) -> Iterator[Batch]:
    """Return batches without end: of the training split, or random ones."""
    if dataset is None:
        rng = np.random.default_rng(0)
        made = [_random(schema, size, rng) for _ in range(max(4, min(64, 200_000 // size)))]
        yield from cycle(made)
    else:
        rows = torch.tensor(schema.rows)
        loader = Loader(dataset.split("train"), batch_size=size, shuffle=True)
        cut = dataset.schema.rows != schema.rows
        epoch = 0
        while True:
            for batch in loader.epoch(epoch):
                yield _within(batch, rows) if cut else batch
            epoch += 1


def _within(batch: Batch, rows: torch.Tensor) -> Batch:
    """Return a batch with ids of cut tables."""
    if batch.offsets is None:
        return replace(batch, ids=(batch.ids % rows).to(batch.ids.dtype))
    of = torch.arange(len(batch.offsets) - 1) % len(rows)
    limits = rows[of.repeat_interleave(batch.offsets.diff())]
    return replace(batch, ids=(batch.ids % limits).to(batch.ids.dtype))


def _random(schema: Schema, size: int, rng: np.random.Generator) -> Batch:
    dense = np.log1p(rng.pareto(0.7, (size, len(schema.dense))).clip(0, 60_000))
    return Batch(
        dense=torch.from_numpy(dense.astype(np.float32)),
        ids=torch.from_numpy(draw_ids(schema.rows, size, "zipf", rng)),
        labels=torch.from_numpy((rng.random(size) < 0.25).astype(np.float32)),
    )


def _repeat(run: Callable[[], None], seconds: float) -> float:
    """Return the seconds of a run: the median over stretches of time, in all about `seconds`."""
    stretches: list[float] = []
    began = time.perf_counter()
    while not stretches or time.perf_counter() - began < seconds:
        started, runs = time.perf_counter(), 0
        while not runs or time.perf_counter() - started < seconds / STRETCHES:
            run()
            runs += 1
        stretches.append((time.perf_counter() - started) / runs)
    return median(stretches)


@torch.inference_mode()
def _evaluation_s(model: nn.Module, batches: Iterator[Batch]) -> float:
    model.eval()
    scored = Metrics()

    def run() -> None:
        batch = next(batches)
        scored.update(model(batch).float().numpy(), batch.labels.numpy())

    run()
    return _repeat(run, EVAL_S)


def _metrics_s() -> float:
    """Return the seconds that the metrics of a sample take, in a crowd."""
    rng = np.random.default_rng(0)
    scored = Metrics()
    labels = (rng.random(SCORED) < 0.25).astype(np.float32)
    scored.update(rng.normal(size=SCORED).astype(np.float32), labels)
    began = time.perf_counter()
    scored.compute()
    return (time.perf_counter() - began) / SCORED


def _write_s() -> tuple[float, float]:
    """Return the seconds that a checkpoint takes in this folder: at all, and a byte of it."""
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".plan-") as folder:
        began = time.perf_counter()
        for number in range(FILES):
            write_tensors(Path(folder) / f"small-{number}", {"weight": torch.ones(1)})
        at_all = time.perf_counter() - began
        tensors = {"weight": torch.ones(WRITTEN_BYTES // 4)}
        began = time.perf_counter()
        write_tensors(Path(folder) / "large", tensors)
        # Its checksum reads it again.
        (Path(folder) / "large").read_bytes()
        return at_all, (time.perf_counter() - began) / WRITTEN_BYTES
