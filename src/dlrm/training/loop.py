"""The training loop, and what it is made of: model, optimizer, batches, measures, checkpoints."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrm.data.loader import Loader
from dlrm.data.store import Dataset, Split
from dlrm.errors import ConfigError, Interrupted
from dlrm.metrics import Metrics, is_better
from dlrm.models.standardized import Standardized
from dlrm.nn.mlp import choose
from dlrm.ops.choice import choices
from dlrm.parallel.world import ALONE, World
from dlrm.run import Run
from dlrm.training import checkpoint
from dlrm.training.average import Average
from dlrm.training.build import Built, build, optimizer_of, pooling
from dlrm.training.config import TrainConfig
from dlrm.training.device import resolve_device
from dlrm.training.draws import Draws
from dlrm.training.evaluate import measured, predict_split
from dlrm.training.interrupt import Interrupt
from dlrm.training.log import Log
from dlrm.training.loss import Loss, loss_function
from dlrm.training.progress import Progress
from dlrm.training.rank_zero_first import rank_zero_first
from dlrm.training.step import Step, TrainStep
from dlrm.training.sync import sync_stop
from dlrm.training.warm_start import warm_start


@dataclass(frozen=True)
class Loop:
    """The training of one model on this process; where it stands is its `Progress`."""

    config: TrainConfig
    dataset: Dataset
    run: Run
    world: World
    device: torch.device
    built: Built
    optimizer: Optimizer
    loss: Loss
    draws: Draws
    """Random numbers of the model: rounding and dropout."""
    loader: Loader
    """Batches of the training split."""
    average: Average
    last_step: int
    """The step at which training ends in any case."""
    metric: str
    """Name of the metric that chooses the best model."""
    scored: dict[str, Metrics] = field(default_factory=dict)
    """Split -> what the best model has predicted of it; empty where that was another process."""

    @classmethod
    def begin(cls, config: TrainConfig, dataset: Dataset, run: Run, world: World = ALONE) -> "Loop":
        """Return the training of a fresh model; all processes of the world call this.

        Raises:
            ConfigError: A setting does not fit the data, or there is no such device.

        """
        schema, train = dataset.schema, dataset.split("train")
        metric = config.eval.resolve(schema.task)
        device = resolve_device(config.device, world.local_rank, world.local_size)
        draws = Draws(device)
        draws.seed(config.seed)
        with draws.lent():
            built = build(config, schema, world, pooling(dataset))
            optimizer = optimizer_of(config, built)
        if not world.first:
            # What is drawn from now on, such as dropout, is of this process' samples.
            draws.seed(hash((config.seed, world.rank)))
        loader = Loader(
            train,
            batch_size=config.loader.batch_size,
            shuffle=config.loader.shuffle,
            seed=config.loader.seed,
            part=(world.rank, world.size),
            pin=device.type == "cuda",
        )
        if world.size > 1:
            # Processes that chose for themselves would sum gradients of different bits.
            if world.first:
                choose(built.model, -(-config.loader.batch_size // world.size))
            choices.repeat_only(world.broadcast_object(choices.used()))
        last_step = min(config.epochs * len(loader), config.max_steps or sys.maxsize)
        return cls(
            config=config,
            dataset=dataset,
            run=run,
            world=world,
            device=device,
            built=built,
            optimizer=optimizer,
            loss=loss_function(config.loss, schema.task, _standardized(built.model, train)),
            draws=draws,
            loader=loader,
            average=Average(built.model, config.average, last_step),
            last_step=last_step,
            metric=metric,
        )

    def step(self, steps: int) -> TrainStep:
        """Return the step of this training, of which so many were taken before.

        Raises:
            ConfigError: Another framework than PyTorch is to take it.

        """
        if self.config.framework != "torch":
            raise ConfigError(
                f"framework is {self.config.framework}, which `dlrm train` alone takes: take torch"
            )
        return TrainStep(
            self.built.net,
            self.optimizer,
            self.loss,
            rate=lambda number: self.config.optim.rate(number, self.last_step),
            clip=self.config.clip,
            device=self.device,
            steps=steps,
            world=self.world,
            draws=self.draws if self.draws.give(self.built.model, self.optimizer) else None,
        )

    def fresh(self) -> Progress:
        """Return where a run stands at its start.

        Raises:
            RunError: It goes on from another one, and cannot.

        """
        folder, source = checkpoint.folder(self.run), self.config.from_run

        def begin_from_source() -> None:
            if source is not None and not checkpoint.steps(folder):
                warm_start(Run.open(source), self.config, self.dataset.schema, folder)

        if source is not None:
            rank_zero_first(self.world, begin_from_source)
            checkpoint.load(folder, 0, self.built.model, self.optimizer, world=self.world)
        return Progress(seen=self._none_seen(), draws=self.draws)

    def resumed(self) -> Progress:
        """Load the newest checkpoint, and return where the run stands; the start without one.

        Raises:
            CheckpointError: The newest checkpoint is damaged or belongs to another model.

        """
        folder = checkpoint.folder(self.run)
        steps = self.world.broadcast_object(checkpoint.steps(folder))
        if not steps or not steps[-1]:
            # Killed before it had trained: it stands at the start.
            self.run.rewind(0)
            return self.fresh()
        model, optimizer, average = self.built.model, self.optimizer, self.average
        progress = checkpoint.load(
            folder, steps[-1], model, optimizer, average, self.world, self.draws
        )
        progress.seen.task = self.dataset.schema.task
        if self.world.first:
            # A process may have been killed before it had.
            checkpoint.remove_old(folder, self.config.checkpoint.keep, progress.best_step)
        if not progress.finished:
            self.run.rewind(progress.step)
            processes = {"processes": self.world.size} if self.world.size > 1 else {}
            self.run.log("resumed", step=progress.step, **processes)
        return progress

    def train(self, progress: Progress, step: Step, title: str) -> None:
        """Take steps until training ends, log them, measure the model and save checkpoints.

        A resumed run is bit-equal to one that never stopped, for an equal number of threads.

        Args:
            progress: Where the run stands, see `fresh` and `resumed`; it moves on.
            step: What trains on a batch.
            title: Title of the progress bar.

        Raises:
            CheckpointError: A checkpoint cannot be written, e.g. because the disk is full.
            DivergedError: The loss is no longer a number.
            Interrupted: The user stopped the run, and it is saved.

        """
        config, run, loader, average, world = (
            self.config, self.run, self.loader, self.average, self.world
        )  # fmt: skip
        log = Log(self, progress, title)
        with Interrupt() as interrupt, world.guard(), log:
            while not progress.finished:
                for batch in loader.epoch(progress.epoch, progress.batch):
                    stopped = sync_stop(world, interrupt.requested)
                    loss = step(batch)
                    stop = stopped()

                    progress.seen.update(step.logits, batch.labels, batch.weights)
                    progress.advance(sum(batch.parts or (len(batch),)))
                    average.step(progress.step)
                    log.step(loss, step.lr)

                    epoch_ends = progress.batch == len(loader)
                    progress.finished = progress.step == self.last_step
                    evaluate = progress.finished or config.eval.is_due(progress.step, len(loader))
                    if evaluate:
                        with log.pause("evaluating"), average.applied():
                            self.evaluate(progress, log)
                        if config.eval.patience and progress.stale >= config.eval.patience:
                            log.flush()
                            run.log("early_stop", step=progress.step, patience=config.eval.patience)
                            progress.finished = True
                    if epoch_ends:
                        progress.next_epoch()

                    every = config.checkpoint.every
                    save = progress.step % every == 0 if every else evaluate
                    # The best model must be there to be loaded at the end.
                    save |= progress.best_step == progress.step
                    if save or progress.finished or stop:
                        with log.pause("saving"):
                            self.save(progress)
                    if progress.finished:
                        break
                    if stop:
                        raise Interrupted(
                            f"stopped and saved at step {progress.step}; go on with: "
                            f"dlrm train --run {run.path} --resume"
                        )

    def evaluate(self, progress: Progress, log: Log) -> None:
        """Measure the training rows since the last time and the held-out splits; note the best."""
        config, schema, world = self.config, self.dataset.schema, self.world
        progress.gather_seen(world)
        if world.first:
            log.evaluated("train", measured(progress.seen, schema))
        progress.seen = self._none_seen()
        value, scored = None, {}
        for name in config.eval.splits:
            split = self.dataset.split(name)
            if len(split) == 0:
                continue
            scored[name] = predict_split(self.built.net, split, config.eval.batch_size, world)
            values = measured(scored[name], schema) if world.first else None
            if values is not None:
                log.evaluated(name, values)
            # The first split alone, even when it is empty: test rows must not choose in its place.
            if name == config.eval.splits[0]:
                # Decided by one, because the last bits may differ from machine to machine.
                value = world.broadcast_object(None if values is None else values.mean(self.metric))
        if value is None:
            return
        if progress.best_value is None or is_better(self.metric, value, progress.best_value):
            progress.best_step, progress.best_value, progress.stale = progress.step, value, 0
            self.scored.clear()
            self.scored.update(scored)
            self.run.log("best", step=progress.step, metric=self.metric, value=value)
        else:
            progress.stale += 1

    def save(self, progress: Progress) -> None:
        """Write a checkpoint; errors as for `train`."""
        folder, keep = checkpoint.folder(self.run), self.config.checkpoint.keep
        checkpoint.save(
            folder, self.built.model, self.optimizer, progress, keep, self.average, self.world
        )

    def _none_seen(self) -> Metrics:
        return Metrics(self.dataset.schema.num_labels, self.dataset.schema.task)


NewStep = Callable[[Loop, int], Step]
"""Returns the step of a training, of which so many were taken before, as `Loop.step` does."""


def _standardized(model: nn.Module, train: Split) -> Tensor | None:
    """Let a model of numbers start at their mean; return their deviations (K,), None of clicks."""
    if not isinstance(model, Standardized):
        return None
    model.standardize(train.labels, train.weights)
    return model.deviation
