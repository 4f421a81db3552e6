"""Random small models, a few steps of each: what the cost model of a machine is fitted to.

All tables are pieces of one block of memory, so that none has to be drawn.
"""

import random
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from dlrm.batch import Batch
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
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig

STEPS = 40
"""Models that are tried."""
EACH_S = 0.15
"""Seconds that each model is measured for, at least."""
WARM = 2
LEAST_RUNS = 3
TABLES_BYTES = 1 << 30
MOST_TRIES, QUIET, PAUSE_S = 6, 60.0, 0.2
"""Tries of a model at most, while another program took a core from this one more often than `QUIET`
times in a second; it may have ended after a pause."""
SHARE = 16
"""Parts of the memory, of which tables take one; the optimizer's state takes up to two more."""
MOST_S = 16.0
"""After so long no model is tried again."""
MOST_FLOPS = 3e10
"""Most FLOP of the products of a step."""
BATCHES, NUMBERS = 6, 1 << 21
"""Most batches of a model, and dense numbers of all of them, which take their time to draw."""
FILL = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A model and its batches."""

    num_embeddings: tuple[int, ...]
    num_dense: int
    model: DLRMConfig
    precision: ComputeDtype
    optimizer: str
    shape: Shape

    @property
    def schema(self) -> Schema:
        """The schema of the model's data."""
        kind = "one_hot" if self.shape.pooling == 1 else "bag"
        return Schema.one_hot(self.num_dense, self.num_embeddings, kind=kind)

    @property
    def config(self) -> TrainConfig:
        """The run whose steps are measured."""
        return TrainConfig(
            model=self.model,
            optim=OptimConfig(name=self.optimizer, lr=LEARNING_RATE),
            precision=self.precision,
        )

    @property
    def flops(self) -> float:
        """FLOP of the products of a step."""
        tables = len(self.num_embeddings)
        pairs = tables * (tables + 1) // 2
        bottom = (self.num_dense, *self.model.bottom, self.model.dim)
        top = (self.model.dim + pairs, *self.model.top, 1)
        products = sum(n * k for sizes in (bottom, top) for n, k in pairwise(sizes))
        return 6.0 * self.shape.batch_size * products


def draw(rng: random.Random, tables_bytes: int) -> Trial:
    """Return a random model whose step takes some tenths of a second at most.

    Args:
        rng: Where it comes from.
        tables_bytes: That its tables may take.

    """
    bf16 = precisions.resolve("auto") == "bf16"
    while True:
        dim = rng.choice((8, 16, 32, 64, 128))
        tables = rng.randint(2, 40)
        largest = 2 ** rng.uniform(10, 21)
        rows = tuple(max(1, int(largest * 2 ** -rng.uniform(0, 8))) for _ in range(tables))
        widths = (32, 64, 128, 256, 512, 1024)
        storage: Storage = rng.choice(("fp32", "fp32", "bf16", "split"))
        trial = Trial(
            num_embeddings=rows,
            num_dense=rng.choice((4, 13, 64, 256)),
            model=DLRMConfig(
                dim=dim,
                bottom=tuple(sorted(rng.choices(widths, k=rng.randint(1, 3)), reverse=True)),
                top=tuple(sorted(rng.choices(widths, k=rng.randint(1, 3)), reverse=True)),
                interaction=rng.choice(("dot", "dot", "dot", "dot", "cat", "projection")),
                tables=TablesConfig(storage=storage),
            ),
            precision=rng.choice(("fp32", "bf16")) if bf16 else "fp32",
            # The default twice, because most take it.
            optimizer=rng.choice(("sgd", *OPTIMIZERS)),
            shape=Shape(
                batch_size=int(2 ** rng.uniform(6, 14)),
                pooling=rng.choice((1, 1, 1, rng.randint(2, 20))),
                ids=rng.choice(("uniform", "zipf")),
            ),
        )
        looked_up = trial.shape.batch_size * tables * trial.shape.pooling
        if (
            4 * dim * sum(rows) <= tables_bytes
            and looked_up * dim <= 2**24
            and trial.flops <= MOST_FLOPS
        ):
            return trial


def calibrate(facts: Facts, ceilings: Ceilings, tick: Callable[[], None]) -> Costs:
    """Measure steps of random models on this machine and fit the cost model to them.

    Args:
        facts: Of this machine.
        ceilings: Of this machine.
        tick: Called after each model.

    """
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
    largest = max(sum(trial.num_embeddings) * trial.model.dim for trial in models)
    store = in_huge_pages(torch.empty(largest)).zero_()
    steps = []
    began = time.perf_counter()
    for number, trial in enumerate(models):
        tries = MOST_TRIES if time.perf_counter() - began < MOST_S else 1
        steps.append(_measure(trial, store, number, tries))
        tick()
    return steps


def _measure(trial: Trial, store: Tensor, seed: int, most_tries: int) -> Step:
    torch.manual_seed(seed)
    model = trial.model.build(trial.schema, trial.precision)
    for tables in collections_of(model):
        assert isinstance(tables, EmbeddingCollection)
        block = store if tables.storage == "fp32" else store.view(torch.bfloat16)
        # What others left there may be no numbers, which take longer.
        rows = block[: tables.weight.numel()].view(-1, tables.dim).fill_(FILL)
        tables.weight = nn.Parameter(rows)
    optimizer = trial.config.optim.build(parameter_groups(model))
    watched = Watched(model, train_step(trial.config, trial.schema, model, optimizer))
    batches = _batches(trial, seed)
    stages = parts(trial.config, trial.schema, trial.shape)
    for batch in batches[:WARM]:
        watched.step(batch)
    tries = [_timed(watched, batches)]
    while len(tries) < most_tries and tries[-1].interrupted > QUIET:
        time.sleep(PAUSE_S)
        tries.append(_timed(watched, batches))
    best = min(tries, key=lambda attempt: attempt.interrupted)
    return Step(tuple(measured(stages, best.stages, best.seconds)), best.seconds)


@dataclass(frozen=True, slots=True)
class _Timed:
    seconds: float
    """Seconds of a step."""
    stages: dict[tuple[str, str], float]
    """Seconds of each stage of a step."""
    interrupted: float
    """How often a second another program took a core from this one."""


def _timed(watched: Watched, batches: Sequence[Batch]) -> _Timed:
    plain: list[float] = []
    clock = Clock()
    switches = _switches()
    began = time.perf_counter()
    while len(plain) < LEAST_RUNS or time.perf_counter() - began < EACH_S:
        batch, other = (batches[(2 * len(plain) + i) % len(batches)] for i in range(2))
        started = time.perf_counter()
        watched.step(batch)
        plain.append(time.perf_counter() - started)
        with watched.watching(clock):
            watched.step(other)
        clock.lap()
    elapsed = time.perf_counter() - began
    return _Timed(median(plain), clock.medians, (_switches() - switches) / elapsed)


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _batches(trial: Trial, seed: int) -> list[Batch]:
    rng = np.random.default_rng(seed)
    shape, size = trial.shape, int(trial.shape.batch_size)
    return [
        random_batch(trial.schema, size, shape.ids, rng, pooling=int(shape.pooling))
        for _ in range(max(2, min(BATCHES, NUMBERS // (size * trial.num_dense))))
    ]
