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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from dlrm import terminal
from dlrm.bench.numerics import scores, speed
from dlrm.bench.numerics.scores import Scores
from dlrm.bench.numerics.variants import REFERENCE, Variant
from dlrm.bench.timer import Timing
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, DatasetError, DivergedError, DlrmError, Interrupted
from dlrm.nn.quantized import quantize
from dlrm.planning.tables import contents
from dlrm.terminal import human_bytes
from dlrm.training import runner
from dlrm.training.build import pooling
from dlrm.training.config import TrainConfig
from dlrm.training.environment import memory_bytes

Tick = Callable[[Variant, int], None]
"""Called before each variant of each seed."""


@dataclass(slots=True)
class Found:
    """What is known of a variant so far."""

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
    """All variants of a comparison.

    Args:
        recipe: Name of the recipe.
        config: Of the recipe; variants change precision, storage and seeds.
        dataset: With training and test rows.
        variants: The reference first.
        seeds: At least two.

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
        self.found = [Found(variant) for variant in variants]

    @property
    def units(self) -> int:
        """How often `run` ticks where nothing fails."""
        return self.seeds * len(self.found)

    @property
    def reference(self) -> Found:
        """The variant that the others are compared with."""
        return self.found[0]

    def run(self, folder: Path, tick: Tick) -> None:
        """Train, convert and score; what is found stays in `found`, also when this is stopped.

        Args:
            folder: For run directories, which are removed again one by one.
            tick: See `Tick`.

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
            for found in self.found[1:]:
                tick(found.variant, seed)
                if not found.open:
                    continue
                try:
                    self._add(found, reference, seed, folder)
                except Interrupted:
                    raise
                except DlrmError as error:
                    found.error = str(error)
                except Exception as error:
                    # Whatever crashes a candidate: the rest is worth keeping.
                    found.error = f"{type(error).__name__}: {error}"

    def _add(self, found: Found, reference: nn.Module, seed: int, folder: Path) -> None:
        variant = found.variant
        model = reference
        if variant.kind != "post-training":
            if seed == 0:
                base, own = (each.config(self.config, seed) for each in (REFERENCE, variant))
                found.training = speed.training(base, own, self.dataset)
                base_timing = found.training[0]
                self.reference.training = self.reference.training or (base_timing, base_timing)
            model = self._trained(variant, seed, folder)
        if variant.to is not None:
            model = quantize(model, variant.to)
        self._measure(found, reference, model, seed)

    def _measure(self, found: Found, reference: nn.Module, model: nn.Module, seed: int) -> None:
        schema, batch_size = self.dataset.schema, self.config.eval.batch_size
        found.scores.append(scores.score(model, self.test, schema, batch_size))
        if seed == 0:
            found.bytes_per_sample = scores.read_bytes(model, pooling(self.dataset))
            found.tables_bytes = scores.tables_bytes(model)
            timed = speed.scoring(reference, model, self.test)
            found.scoring = (timed[0], timed[0]) if model is reference else timed

    def _trained(self, variant: Variant, seed: int, folder: Path) -> nn.Module:
        config = variant.config(self.config, seed)
        path = folder / f"{variant.name}-{seed}"
        run = runner.create(path, self.recipe, config, self.dataset)
        try:
            with terminal.quiet():
                return runner.fit(config, self.dataset, run)
        finally:
            shutil.rmtree(path, ignore_errors=True)


def _check_memory(config: TrainConfig, dataset: Dataset) -> None:
    """Raise a ConfigError where there is no room for the reference and a variant beside it."""
    with torch.device("meta"):
        model = config.model.build(dataset.schema)
    kept = contents(model, config.optim.name)
    needed, there = 2 * (kept.model_bytes + kept.state_bytes), memory_bytes()
    if there is not None and needed > there:
        raise ConfigError(
            f"the reference and a variant take {human_bytes(needed)} with their optimizers, and "
            f"this machine has {human_bytes(there)}: choose a smaller --model.dim or "
            "--prepare.max-rows-per-table"
        )
