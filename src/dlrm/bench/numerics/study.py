"""Every variant trained or converted with every seed, scored on the same test rows.

    for each seed
        train the reference
        convert its tables, once for each post-training variant
        train the other variants, and make codes of the tables that were trained for them
        score each on the test rows; with the first seed also time it beside the reference

A variant that fails says why and is left out from then on. What was measured when the user stopped
stays.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dlrm import terminal
from dlrm.batch import Batch
from dlrm.bench.local_step import fresh_step
from dlrm.bench.numerics.variants import REFERENCE, Variant
from dlrm.bench.timer import Timing, in_turn, interleave, steps_of
from dlrm.data.loader import Loader
from dlrm.data.store import Dataset, Split
from dlrm.errors import ConfigError, DatasetError, DivergedError, DlrmError, Interrupted
from dlrm.metrics import Values
from dlrm.metrics.resample import Blocks, rows_of
from dlrm.nn.embedding import EmbeddingCollection, embeddings_of
from dlrm.nn.hashed import HashedEmbeddings
from dlrm.nn.quantized import QuantizedCollection, quantize
from dlrm.planning.facts import memory_bytes
from dlrm.planning.tables import contents
from dlrm.schema import Schema
from dlrm.terminal import human_bytes
from dlrm.training.build import pooling
from dlrm.training.config import TrainConfig
from dlrm.training.evaluate import measured, predict_split
from dlrm.training.trainer import Trainer

SCORED_BATCH = 2048
SCORED_ROWS = 32_768
"""Rows of the test split that are scored, read before they are timed."""
TRAINED_ROWS = 65_536
"""Rows of the training split that are trained on, likewise."""
ROUND_S = 0.05
"""Seconds of a round, about: more than a moment's luck."""
MOST_STEPS = 200
ROUNDS = 7

Tick = Callable[[Variant, int], None]
"""Called before each variant of each seed."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The metrics of a model on all test rows, and its AUC on resamples of them."""

    values: Values
    resampled: NDArray[np.float64]
    """(R,) AUC on each resample, the same resamples for all models."""

    def value(self, metric: str) -> float:
        """Return a metric, which must be defined."""
        return self.values.require(metric)


@dataclass(slots=True)
class Tried:
    """Scores, timings and sizes of a variant, as far as they were measured."""

    variant: Variant
    scores: list[Scores] = field(default_factory=list)
    """One a seed."""
    bytes_per_sample: float | None = None
    tables_bytes: int | None = None
    scoring: tuple[Timing, Timing] | None = None
    """Seconds a sample of the reference and of this variant."""
    training: tuple[Timing, Timing] | None = None
    """Seconds a sample of the training step; None where training is the reference's."""
    error: str | None = None

    @property
    def open(self) -> bool:
        """Whether it has not failed."""
        return self.error is None


class Study:
    """All variants of a comparison, the reference first, with at least two seeds each.

    Raises:
        ConfigError: There are too few seeds, batches are larger than the data, or two models do
            not fit into memory.
        DatasetError: The dataset has no rows to train or to test on, or those have one class.

    """

    def __init__(
        self,
        recipe: str,
        config: TrainConfig,
        dataset: Dataset,
        variants: Sequence[Variant],
        seeds: int,
    ):
        if seeds < 2:
            raise ConfigError(
                f"seeds is {seeds}: at least 2 are needed, because without a spread between seeds "
                "no change has an interval"
            )
        train, test = dataset.split("train"), dataset.split("test")
        for name, split in (("train", train), ("test", test)):
            if not len(split):
                raise DatasetError(
                    f"{dataset.path}: the {name} split has no rows; see --prepare.fractions"
                )
        if config.loader.batch_size > len(train):
            raise ConfigError(
                f"loader.batch_size is {config.loader.batch_size}, and there are {len(train):,} "
                "training rows: take a smaller batch, or more data"
            )
        if dataset.schema.task != "classification":
            raise ConfigError(f"{dataset.path}: its labels are real numbers, which have no AUC")
        if test.labels[:, 0].min() == test.labels[:, 0].max():
            raise DatasetError(f"{dataset.path}: all test rows have one label, so AUC is undefined")
        _check_memory(config, dataset)
        self.recipe, self.config, self.dataset, self.test = recipe, config, dataset, test
        self.seeds = seeds
        self.tried = [Tried(variant) for variant in variants]

    @property
    def units(self) -> int:
        """How often `run` ticks where nothing fails."""
        return self.seeds * len(self.tried)

    @property
    def reference(self) -> Tried:
        """The variant that the others are compared with."""
        return self.tried[0]

    def run(self, folder: Path, tick: Tick) -> None:
        """Train, convert and score; what is measured stays in `tried`, also when this is stopped.

        Run directories are made in the folder, and removed again one by one.

        Raises:
            DlrmError: The reference itself cannot be trained with the first seed.
            Interrupted: The user stopped it.

        """
        for seed in range(self.seeds):
            tick(REFERENCE, seed)
            try:
                reference = self._trained(REFERENCE, seed, folder)
                self._measure(self.reference, reference, reference, seed)
            except DivergedError as error:
                if seed == 0:
                    raise
                # The seeds before it are worth keeping, and later ones may fail alike.
                self.reference.error = f"seed {seed}: {error}"
                return
            for tried in self.tried[1:]:
                tick(tried.variant, seed)
                if not tried.open:
                    continue
                try:
                    self._add(tried, reference, seed, folder)
                except Interrupted:
                    raise
                except DlrmError as error:
                    tried.error = str(error)
                except Exception as error:
                    # Whatever crashes a candidate: the rest is worth keeping.
                    tried.error = f"{type(error).__name__}: {error}"

    def _add(self, tried: Tried, reference: nn.Module, seed: int, folder: Path) -> None:
        variant = tried.variant
        model = reference
        if variant.kind != "post-training":
            if seed == 0:
                base, changed = (
                    tried_variant.config(self.config, seed)
                    for tried_variant in (REFERENCE, variant)
                )
                tried.training = training(base, changed, self.dataset)
                base_timing = tried.training[0]
                self.reference.training = self.reference.training or (base_timing, base_timing)
            model = self._trained(variant, seed, folder)
        if variant.to is not None:
            model = quantize(model, variant.to)
        self._measure(tried, reference, model, seed)

    def _measure(self, tried: Tried, reference: nn.Module, model: nn.Module, seed: int) -> None:
        schema, batch_size = self.dataset.schema, self.config.eval.batch_size
        tried.scores.append(score(model, self.test, schema, batch_size))
        if seed == 0:
            tried.bytes_per_sample = read_bytes(model, pooling(self.dataset))
            tried.tables_bytes = tables_bytes(model)
            timed = scoring(reference, model, self.test)
            tried.scoring = (timed[0], timed[0]) if model is reference else timed

    def _trained(self, variant: Variant, seed: int, folder: Path) -> nn.Module:
        config = variant.config(self.config, seed)
        path = folder / f"{variant.name}-{seed}"
        trainer = Trainer.create(path, self.recipe, config, self.dataset)
        try:
            with terminal.quiet():
                return trainer.fit().model
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _check_memory(config: TrainConfig, dataset: Dataset) -> None:
    """Raise a ConfigError where there is no room for the reference and a variant beside it."""
    with torch.device("meta"):
        model = config.model.build(dataset.schema)
    sizes = contents(model, config.optim.name)
    needed, there = 2 * (sizes.model_bytes + sizes.state_bytes), memory_bytes()
    if there is not None and needed > there:
        raise ConfigError(
            f"the reference and a variant take {human_bytes(needed)} with their optimizers, and "
            f"this machine has {human_bytes(there)}: choose a smaller --model.dim or "
            "--prepare.max-rows-per-table"
        )


def score(model: nn.Module, split: Split, schema: Schema, batch_size: int) -> Scores:
    """Return how good a model is on a split, by its first label.

    Raises:
        DivergedError: A score is no number.

    """
    predictions = predict_split(model, split, batch_size)
    values = measured(predictions, schema)
    logits, labels, _ = predictions.arrays()
    rows = rows_of("classification", logits[:, 0], labels[:, 0])
    return Scores(values.first, Blocks(len(labels), None).resampled(rows)["auc"])


def read_bytes(model: nn.Module, pooling: Mapping[str, float]) -> float:
    """Return the bytes of table rows that a sample reads, codes and scales included.

    `pooling` has the mean ids of a sample by feature; 1 where none is given.
    """
    hashes = {
        id(module.tables): module.hashes
        for module in model.modules()
        if isinstance(module, HashedEmbeddings)
    }
    return sum(
        # Such a one holds its rows and nothing else.
        part.size_bytes / sum(part.layout.sizes) * hashes.get(id(part), 1) * pooling.get(name, 1.0)
        for part in model.modules()
        if isinstance(part, EmbeddingCollection | QuantizedCollection)
        for name in part.names
    )


def tables_bytes(model: nn.Module) -> int:
    """Return the bytes of all tables, as a checkpoint holds them."""
    return sum(part.size_bytes for part in embeddings_of(model))


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
    steps = steps_of(reference, batches, ROUND_S, MOST_STEPS)
    samples = steps * len(batches[0])
    timed = interleave(
        {
            "reference": in_turn(reference, batches, steps),
            "variant": in_turn(other, batches, steps),
        },
        rounds=ROUNDS,
    )
    return timed["reference"].per(samples), timed["variant"].per(samples)


def _batches(split: Split, batch_size: int, rows: int) -> list[Batch]:
    """Return whole batches of the first rows; what is smaller where there is no whole one."""
    loader = Loader(split, batch_size=min(batch_size, len(split)))
    return list(islice(loader.epoch(), max(1, min(rows, len(split)) // loader.batch_size)))


def _step(config: TrainConfig, dataset: Dataset) -> Callable[[Batch], float]:
    torch.manual_seed(config.seed)
    train = fresh_step(config, dataset.schema)
    return lambda batch: train(batch).item()
