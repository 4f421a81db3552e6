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

from dlrm.batch import Batch
from dlrm.bench.batches import CLICK_RATE, random_batch
from dlrm.bench.local_step import fresh_step
from dlrm.data.loader import Loader
from dlrm.data.store import Dataset
from dlrm.files import write_tensors
from dlrm.metrics import Metrics
from dlrm.ops.memory import keep_freed_memory
from dlrm.planning.tables import contents
from dlrm.planning.times import Rates
from dlrm.schema import Schema
from dlrm.terminal import progress
from dlrm.training.config import TrainConfig
from dlrm.training.step import TrainStep

LIMIT_BYTES = 1_000_000_000
"""Most bytes of tables and optimizer state that are measured on."""
TRAIN_S, EVAL_S, WARM_S = 4.0, 1.0, 0.7
STRETCHES = 15
"""Stretches of time, whose median counts: others may use the machine meanwhile."""
SCORED = 200_000
WRITTEN_BYTES = 64_000_000
FILES = 4
"""Files of a checkpoint."""


def measure(
    config: TrainConfig,
    schema: Schema,
    dataset: Dataset | None,
    *,
    batch_size: int,
    threads: int = 0,
) -> Rates:
    """Measure for some seconds, on a dataset or, where there is none, ids by a power law.

    Threads are those of the config, or as many as there are, where none are given.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or config.threads or before)
    keep_freed_memory()
    torch.manual_seed(config.seed)
    smaller = capped(config, schema)
    try:
        with progress() as bar:
            task = bar.add_task("measuring", total=4)
            train = fresh_step(config, smaller)
            bar.advance(task)
            batches = _batches(dataset, smaller, batch_size)
            seen = Metrics(smaller.num_labels, smaller.task)

            def step() -> None:
                batch = next(batches)
                train(batch).item()
                seen.update(train.logits, batch.labels, batch.weights)

            _repeat(step, WARM_S)
            bar.advance(task)
            step_s = _repeat(step, TRAIN_S)
            bar.advance(task)
            size = min(config.eval.batch_size, 16384)
            evaluation_s = _evaluation_s(train, smaller, _batches(dataset, smaller, size)) / size
            bar.advance(task)
    finally:
        torch.set_num_threads(before)
    save_s, write_s = _write_s()
    return Rates(
        step_s=step_s,
        evaluation_s=evaluation_s,
        metrics_s=_metrics_s(schema),
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
        sizes = contents(model, config.optim.name)
        return sizes.model_bytes + sizes.state_bytes

    most = max(schema.num_embeddings, default=0)
    while most > 1000 and kept_bytes(most) > LIMIT_BYTES:
        most = most * 4 // 5
    return _cut(schema, most)


def _cut(schema: Schema, most: int) -> Schema:
    tables = (
        replace(table, num_embeddings=min(table.num_embeddings, most)) for table in schema.tables
    )
    return replace(schema, tables=tuple(tables))


def _batches(dataset: Dataset | None, schema: Schema, size: int) -> Iterator[Batch]:
    """Return batches without end: of the training split, or random ones."""
    if dataset is None:
        rng = np.random.default_rng(0)
        count = max(4, min(64, 200_000 // size))
        yield from cycle([random_batch(schema, size, "zipf", rng) for _ in range(count)])
    else:
        loader = Loader(dataset.split("train"), batch_size=size, shuffle=True)
        cut = dataset.schema.tables != schema.tables
        epoch = 0
        while True:
            for batch in loader.epoch(epoch):
                yield _within(batch, schema) if cut else batch
            epoch += 1


def _within(batch: Batch, schema: Schema) -> Batch:
    """Return a batch with ids of cut tables."""
    sizes = dict(zip(schema.feature_names, schema.num_embeddings, strict=True))
    limits = torch.tensor([sizes[feature.name] for feature in schema.one_hot_features])
    ids = (batch.ids % limits).to(batch.ids.dtype)
    if batch.lists is None:
        return replace(batch, ids=ids)
    limits = torch.tensor([sizes[feature.name] for feature in schema.list_features])
    limits = limits.repeat(len(batch)).repeat_interleave(batch.lists.lengths)
    values = (batch.lists.values % limits).to(batch.lists.values.dtype)
    return replace(batch, ids=ids, lists=batch.lists._replace(values=values))


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
def _evaluation_s(train: TrainStep, schema: Schema, batches: Iterator[Batch]) -> float:
    net = train.net.eval()
    scored = Metrics(schema.num_labels, schema.task)

    def run() -> None:
        batch = next(batches)
        scored.update(net(train.to_device(batch)), batch.labels, batch.weights)

    run()
    return _repeat(run, EVAL_S)


def _metrics_s(schema: Schema) -> float:
    """Return the seconds that the metrics of a sample take, in a crowd."""
    rng = np.random.default_rng(0)
    scored = Metrics(schema.num_labels, schema.task)
    shape = (SCORED, schema.num_labels)
    labels = (rng.random(shape) < CLICK_RATE).astype(np.float32)
    scored.update(rng.normal(size=shape).astype(np.float32), labels)
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
