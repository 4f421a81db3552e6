"""Random small models, a few steps of each: what the cost model of a machine is fitted to.

All tables are pieces of one block of memory, so that none has to be drawn.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from dlrm.batch import Batch
from dlrm.bench.arch import Arch
from dlrm.bench.batches import random_batch
from dlrm.bench.local_step import LEARNING_RATE, train_step
from dlrm.models.dlrm import DLRMConfig
from dlrm.nn import precision as precisions
from dlrm.nn.embedding import EmbeddingCollection, Storage, collections_of, parameter_groups
from dlrm.nn.precision import ComputeDtype
from dlrm.nn.tables import TablesConfig
from dlrm.ops.memory import in_huge_pages, keep_freed_memory
from dlrm.optim import OPTIMIZERS
from dlrm.optim.config import OptimConfig
from dlrm.planning.ceilings import Ceilings
from dlrm.planning.costs import Costs
from dlrm.planning.facts import Facts
from dlrm.planning.fit import Step, fit
from dlrm.planning.parts import measured, parts
from dlrm.planning.stages import Clock, Watched
from dlrm.planning.work import Shape
from dlrm.training.config import TrainConfig

STEPS = 40
"""Models that are tried."""
EACH_S = 0.15
"""Seconds that each model is measured for, at least."""
WARM = 2
LEAST_RUNS = 3
TABLES_BYTES = 1 << 30
SHARE = 16
"""Parts of the memory, of which tables take one; the optimizer's state takes up to two more."""
MOST_FLOPS = 3e10
"""Most FLOP of the products of a step."""
BATCHES, NUMBERS = 6, 1 << 21
"""Most batches of a model, and dense numbers of all of them, which take their time to draw."""
FILL = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A model and its batches."""

    arch: Arch
    precision: ComputeDtype
    optimizer: str
    shape: Shape

    @property
    def config(self) -> TrainConfig:
        """The run whose steps are measured."""
        return TrainConfig(
            model=self.arch.model,
            optim=OptimConfig(name=self.optimizer, lr=LEARNING_RATE),
            precision=self.precision,
        )

    @property
    def flops(self) -> float:
        """FLOP of the products of a step."""
        layers = (*pairwise(self.arch.bottom), *pairwise(self.arch.top))
        return 6.0 * self.shape.batch_size * sum(n * k for n, k in layers)


def draw(rng: random.Random, tables_bytes: int) -> Trial:
    """Return a random model, with so many bytes of tables, whose step takes tenths of a second."""
    bf16 = precisions.resolve("auto") == "bf16"
    while True:
        dim = rng.choice((8, 16, 32, 64, 128))
        tables = rng.randint(2, 40)
        largest = 2 ** rng.uniform(10, 21)
        rows = tuple(max(1, int(largest * 2 ** -rng.uniform(0, 8))) for _ in range(tables))
        widths = (32, 64, 128, 256, 512, 1024)
        storage: Storage = rng.choice(("fp32", "fp32", "bf16", "split"))
        num_dense = rng.choice((4, 13, 64, 256))
        model = DLRMConfig(
            dim=dim,
            bottom=tuple(sorted(rng.choices(widths, k=rng.randint(1, 3)), reverse=True)),
            top=tuple(sorted(rng.choices(widths, k=rng.randint(1, 3)), reverse=True)),
            interaction=rng.choice(("dot", "dot", "dot", "dot", "cat", "projection")),
            tables=TablesConfig(storage=storage),
        )
        precision = rng.choice(("fp32", "bf16")) if bf16 else "fp32"
        # The default twice, because most take it.
        optimizer = rng.choice(("sgd", *OPTIMIZERS))
        batch_size, pooling = (
            int(2 ** rng.uniform(6, 14)),
            rng.choice((1, 1, 1, rng.randint(2, 20))),
        )
        trial = Trial(
            arch=Arch("", rows, model, num_dense, pooling),
            precision=precision,
            optimizer=optimizer,
            shape=Shape(batch_size, pooling, rng.choice(("uniform", "zipf"))),
        )
        if (
            4 * dim * sum(rows) <= tables_bytes
            and batch_size * tables * pooling * dim <= 2**24
            and trial.flops <= MOST_FLOPS
        ):
            return trial


def calibrate(facts: Facts, ceilings: Ceilings, tick: Callable[[], None]) -> Costs:
    """Measure steps of random models on this machine and fit its cost model; ticks after each."""
    room = min(TABLES_BYTES, (facts.memory_bytes or TABLES_BYTES) // SHARE)
    cache = facts.last_level
    steps = measure(trials(STEPS, tables_bytes=room), tick)
    return fit(steps, ceilings, cache.total_bytes if cache else 0.0)


def trials(count: int, seed: int = 0, tables_bytes: int = TABLES_BYTES) -> list[Trial]:
    """Return so many random models, whose tables take at most so much each."""
    rng = random.Random(seed)
    return [draw(rng, tables_bytes) for _ in range(count)]


def measure(models: Sequence[Trial], tick: Callable[[], None]) -> list[Step]:
    """Measure a few steps of each model."""
    keep_freed_memory()
    largest = max(trial.arch.rows_total * trial.arch.model.dim for trial in models)
    store = in_huge_pages(torch.empty(largest)).zero_()
    steps = []
    for number, trial in enumerate(models):
        steps.append(_measure(trial, store, number))
        tick()
    return steps


def _measure(trial: Trial, store: Tensor, seed: int) -> Step:
    torch.manual_seed(seed)
    schema = trial.arch.schema
    model = trial.arch.model.build(schema, trial.precision)
    for tables in collections_of(model):
        assert isinstance(tables, EmbeddingCollection)
        block = store if tables.storage == "fp32" else store.view(torch.bfloat16)
        # What others left there may be no numbers, which take longer.
        rows = block[: tables.weight.numel()].view(-1, tables.dim).fill_(FILL)
        tables.weight = nn.Parameter(rows)
    optimizer = trial.config.optim.build(parameter_groups(model))
    watched = Watched(model, train_step(trial.config, schema, model, optimizer))
    batches = _batches(trial, seed)
    stages = parts(trial.config, schema, trial.shape)
    for batch in batches[:WARM]:
        watched.step(batch)
    plain: list[float] = []
    clock = Clock()
    began = time.perf_counter()
    while len(plain) < LEAST_RUNS or time.perf_counter() - began < EACH_S:
        batch, other = (batches[(2 * len(plain) + i) % len(batches)] for i in range(2))
        started = time.perf_counter()
        watched.step(batch)
        plain.append(time.perf_counter() - started)
        with watched.watching(clock):
            watched.step(other)
        clock.lap()
    return Step(tuple(measured(stages, clock.medians, median(plain))), median(plain))


def _batches(trial: Trial, seed: int) -> list[Batch]:
    rng = np.random.default_rng(seed)
    shape, size = trial.shape, int(trial.shape.batch_size)
    return [
        random_batch(trial.arch.schema, size, shape.ids, rng, pooling=int(shape.pooling))
        for _ in range(max(2, min(BATCHES, NUMBERS // (size * trial.arch.num_dense))))
    ]
