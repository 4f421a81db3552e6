"""How fast a variant scores and trains, round by round beside the reference."""

import time
from collections.abc import Callable
from itertools import cycle, islice

import torch
from torch import nn

from dlrm.batch import Batch
from dlrm.bench.local_step import fresh_step
from dlrm.bench.timer import Timing, interleave
from dlrm.data.loader import Loader
from dlrm.data.store import Dataset, Split
from dlrm.training.config import TrainConfig

SCORED_BATCH = 2048
SCORED_ROWS = 32_768
"""Of the test rows, read before they are timed."""
TRAINED_ROWS = 65_536
"""Of the training rows, likewise."""
ROUND_S = 0.05
"""Of a round, about: more than a moment's luck."""
TRIED_STEPS = 4
"""That say how many a round has."""
MOST_STEPS = 200
ROUNDS = 7


def scoring(reference: nn.Module, model: nn.Module, split: Split) -> tuple[Timing, Timing]:
    """Return the seconds of a sample that two models score, the reference's first."""
    batches = _batches(split, SCORED_BATCH, SCORED_ROWS)
    with torch.inference_mode():
        return _timed(reference.eval().__call__, model.eval().__call__, batches)


def training(
    reference: TrainConfig, config: TrainConfig, dataset: Dataset
) -> tuple[Timing, Timing]:
    """Return the seconds of a sample that two configs train on, the reference's first.

    Each is a whole step of a fresh model, as the training loop takes it.
    """
    batches = _batches(dataset.split("train"), config.loader.batch_size, TRAINED_ROWS)
    return _timed(_step(reference, dataset), _step(config, dataset), batches)


def _timed(
    reference: Callable[[Batch], object], other: Callable[[Batch], object], batches: list[Batch]
) -> tuple[Timing, Timing]:
    # The first of all is slow: its memory is new.
    _round(reference, batches, TRIED_STEPS)()
    began = time.perf_counter()
    _round(reference, batches, TRIED_STEPS)()
    step_s = (time.perf_counter() - began) / TRIED_STEPS
    steps = max(1, min(MOST_STEPS, round(ROUND_S / step_s)))
    samples = steps * len(batches[0])
    timed = interleave(
        {"reference": _round(reference, batches, steps), "variant": _round(other, batches, steps)},
        rounds=ROUNDS,
    )
    return timed["reference"].per(samples), timed["variant"].per(samples)


def _round(run: Callable[[Batch], object], batches: list[Batch], steps: int) -> Callable[[], None]:
    endless = cycle(batches)

    def whole() -> None:
        for batch in islice(endless, steps):
            run(batch)

    return whole


def _batches(split: Split, batch_size: int, rows: int) -> list[Batch]:
    """Return whole batches of the first rows; what is smaller where there is no whole one."""
    loader = Loader(split, batch_size=min(batch_size, len(split)))
    return list(islice(loader.epoch(), max(1, min(rows, len(split)) // loader.batch_size)))


def _step(config: TrainConfig, dataset: Dataset) -> Callable[[Batch], float]:
    torch.manual_seed(config.seed)
    train = fresh_step(config, dataset.schema)
    return lambda batch: train(batch).item()
