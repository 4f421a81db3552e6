"""The training loop: batches through one step, a line now and then, evaluations, checkpoints."""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from dlrm.data.loader import Loader
from dlrm.data.store import Dataset, Split
from dlrm.errors import DatasetError, Interrupted, RunError
from dlrm.metrics import Metrics, is_better
from dlrm.models.standardized import Standardized
from dlrm.ops.memory import keep_freed_memory
from dlrm.parallel.world import World
from dlrm.run import Run
from dlrm.training import checkpoint
from dlrm.training.average import Average
from dlrm.training.build import build, optimizer_of, pooling
from dlrm.training.checkpoint import Progress
from dlrm.training.config import TrainConfig
from dlrm.training.device import resolve_device
from dlrm.training.evaluate import measured, predict_split
from dlrm.training.interrupt import Interrupt
from dlrm.training.log import Log
from dlrm.training.loss import loss_function
from dlrm.training.step import TrainStep
from dlrm.training.sync import sync_stop
from dlrm.training.tensorboard import EventWriter


def fit(
    config: TrainConfig,
    dataset: Dataset,
    run: Run,
    *,
    resume: bool = False,
    title: str = "training",
    world: World | None = None,
) -> nn.Module:
    """Train a model into a run directory, or go on with one from its newest checkpoint.

    A resumed run is bit-equal to one that never stopped, for an equal number of threads.

    Args:
        config: Of the run.
        dataset: With the schema of the run.
        run: Directory for metrics and checkpoints.
        resume: Go on from the newest checkpoint; from the start where there is none yet.
        title: Of the progress bar.
        world: The processes of the run, all of which call this; the first writes and shows.

    Returns:
        The best model, by the metric and split of `config.eval`.

    Raises:
        DatasetError: There is nothing to train on.
        ConfigError: A setting does not fit the data, or there is no such device.
        CheckpointError: The newest checkpoint is damaged or belongs to another model.
        DivergedError: The loss is no longer a number.
        Interrupted: The user stopped the run, and it is saved.

    """
    world = world or World.alone()
    if config.threads:
        torch.set_num_threads(config.threads)
    train = _rows(dataset)
    metric = config.eval.resolve(dataset.schema.task)
    device = resolve_device(config.device, world.local_rank, world.local_size)
    keep_freed_memory()
    torch.manual_seed(config.seed)
    built = build(config, dataset.schema, world, pooling(dataset))
    model, net, optimizer = built.model, built.net, optimizer_of(config, built)
    loss = loss_function(config.loss, dataset.schema.task, _standardized(model, train))
    if not world.first:
        # What is drawn from now on, such as dropout, is of this process' samples.
        torch.manual_seed(hash((config.seed, world.rank)))
    loader = Loader(
        train,
        batch_size=config.loader.batch_size,
        shuffle=config.loader.shuffle,
        seed=config.loader.seed,
        part=(world.rank, world.size),
        pin=device.type == "cuda",
    )
    last_step = min(config.epochs * len(loader), config.max_steps or sys.maxsize)
    # Rounded up, so that the tenth of ten falls on the end of the epoch.
    eval_every = config.eval.every or -(-len(loader) // 10)

    average = Average(model, config.average, last_step)
    progress = Progress(seen=_none_seen(dataset))
    if resume:
        progress = _resume(run, model, optimizer, average, world) or progress
        progress.seen.task = dataset.schema.task
    step = TrainStep(
        net,
        optimizer,
        loss,
        rate=lambda number: config.optim.rate(number, last_step),
        clip=config.clip,
        device=device,
        steps=progress.step,
    )
    log = Log(
        run,
        progress,
        loader,
        model,
        last_step=last_step,
        every=config.log_every,
        title=title,
        events=_events(run, progress, resume) if config.tensorboard and world.first else None,
        world=world,
    )
    with Interrupt() as interrupt, world.guard(), log:
        while not progress.finished:
            for batch in loader.epoch(progress.epoch, progress.batch):
                stopped = sync_stop(world, interrupt.requested)
                batch_loss = step(batch)
                stop = stopped()

                progress.seen.update(step.logits, batch.labels, batch.weights)
                progress.advance(sum(batch.parts or (len(batch),)))
                average.step(progress.step)
                log.step(batch_loss, step.lr)

                epoch_ends = progress.batch == len(loader)
                progress.finished = progress.step == last_step
                evaluate = progress.step % eval_every == 0 or epoch_ends or progress.finished
                if evaluate:
                    with log.pause("evaluating"), average.applied():
                        _evaluate(config, dataset, net, metric, progress, log, world)
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
                        checkpoint.save(
                            _folder(run),
                            model,
                            optimizer,
                            progress,
                            config.checkpoint.keep,
                            average,
                            world,
                        )
                if progress.finished:
                    break
                if stop:
                    raise Interrupted(
                        f"stopped and saved at step {progress.step}; go on with: "
                        f"dlrm train --run {run.path} --resume"
                    )
    load_best(run, model, world)
    return net


def load_best(run: Run, model: nn.Module, world: World | None = None) -> nn.Module:
    """Put the best parameters of a run into a model: the newest where none was chosen.

    Args:
        run: Of the model.
        model: Of one process, or of these.
        world: The processes that load.

    Raises:
        RunError: The run has no checkpoint yet.

    """
    steps = checkpoint.steps(_folder(run))
    if not steps:
        raise RunError(f"{run.path} has no checkpoint yet")
    best = checkpoint.read_progress(_folder(run), steps[-1])["best_step"]
    step = steps[-1] if best is None else best
    checkpoint.load(_folder(run), step, model, None, world=world)
    return model


def _standardized(model: nn.Module, train: Split) -> Tensor | None:
    """Let a model of numbers start at their mean; return their deviations (K,), None of clicks."""
    if not isinstance(model, Standardized):
        return None
    model.standardize(train.labels, train.weights)
    return model.deviation


def _rows(dataset: Dataset) -> Split:
    train = dataset.split("train")
    if len(train) == 0:
        raise DatasetError(f"{dataset.path}: the training split has no rows")
    return train


def _evaluate(
    config: TrainConfig,
    dataset: Dataset,
    net: nn.Module,
    metric: str,
    progress: Progress,
    log: Log,
    world: World,
) -> None:
    """Measure the training rows since the last time and the held-out splits; note the best."""
    schema = dataset.schema
    checkpoint.gather_seen(progress, world)
    if world.first:
        log.evaluated("train", measured(progress.seen, schema))
    progress.seen = _none_seen(dataset)
    value = None
    for name in config.eval.splits:
        split = dataset.split(name)
        if len(split) == 0:
            continue
        predictions = predict_split(net, split, config.eval.batch_size, world)
        values = measured(predictions, schema) if world.first else None
        if values is not None:
            log.evaluated(name, values)
        # The first split alone, even when it is empty: test rows must not choose in its place.
        if name == config.eval.splits[0]:
            # Decided by one, because the last bits may differ from machine to machine.
            value = world.broadcast_object(None if values is None else values.mean(metric))
    if value is None:
        return
    if progress.best_value is None or is_better(metric, value, progress.best_value):
        progress.best_step, progress.best_value, progress.stale = progress.step, value, 0
        log.run.log("best", step=progress.step, metric=metric, value=value)
    else:
        progress.stale += 1


def _none_seen(dataset: Dataset) -> Metrics:
    return Metrics(dataset.schema.num_labels, dataset.schema.task)


def _folder(run: Run) -> Path:
    return run.path / "checkpoints"


def _resume(
    run: Run,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Average,
    world: World,
) -> Progress | None:
    steps = world.broadcast_object(checkpoint.steps(_folder(run)))
    if not steps:
        # Killed before its first checkpoint: it stands at the start.
        run.rewind(0)
        return None
    progress = checkpoint.load(_folder(run), steps[-1], model, optimizer, average, world)
    if not progress.finished:
        run.rewind(progress.step)
        processes = {"processes": world.size} if world.size > 1 else {}
        run.log("resumed", step=progress.step, **processes)
    return progress


def _events(run: Run, progress: Progress, resume: bool) -> EventWriter:
    return EventWriter(run.path / "tensorboard", resumed_at=progress.step if resume else None)
