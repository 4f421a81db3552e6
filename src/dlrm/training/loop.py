"""The training loop: batches through one step, a line now and then, evaluations, checkpoints."""

import torch
from torch import nn

from dlrm.data.store import Dataset
from dlrm.errors import Interrupted, RunError
from dlrm.ops.memory import keep_freed_memory
from dlrm.parallel.world import ALONE, World
from dlrm.run import Run
from dlrm.training import checkpoint
from dlrm.training.config import TrainConfig
from dlrm.training.interrupt import Interrupt
from dlrm.training.log import Log
from dlrm.training.sync import sync_stop
from dlrm.training.trainer import Trainer


def fit(
    config: TrainConfig,
    dataset: Dataset,
    run: Run,
    *,
    resume: bool = False,
    title: str = "training",
    world: World = ALONE,
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
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    trainer = Trainer.begin(config, dataset, run, world)
    loader, average = trainer.loader, trainer.average
    progress = trainer.resumed() if resume else trainer.fresh()
    step = trainer.step(progress.step)
    log = Log(
        run,
        progress,
        loader,
        trainer.built.model,
        last_step=trainer.last_step,
        every=config.log_every,
        title=title,
        events=trainer.events(progress.step if resume else None),
        world=world,
    )
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
                progress.finished = progress.step == trainer.last_step
                evaluate = progress.finished or config.eval.is_due(progress.step, len(loader))
                if evaluate:
                    with log.pause("evaluating"), average.applied():
                        trainer.evaluate(progress, log)
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
                        trainer.save(progress)
                if progress.finished:
                    break
                if stop:
                    raise Interrupted(
                        f"stopped and saved at step {progress.step}; go on with: "
                        f"dlrm train --run {run.path} --resume"
                    )
    load_best(run, trainer.built.model, world)
    return trainer.built.net


def load_best(run: Run, model: nn.Module, world: World = ALONE) -> nn.Module:
    """Put the best parameters of a run into a model: the newest where none was chosen.

    Args:
        run: Of the model.
        model: Of one process, or of these.
        world: The processes that load.

    Raises:
        RunError: The run has no checkpoint yet.

    """
    steps = checkpoint.steps(checkpoint.folder(run))
    if not steps:
        raise RunError(f"{run.path} has no checkpoint yet")
    best = checkpoint.read_progress(checkpoint.folder(run), steps[-1])["best_step"]
    step = steps[-1] if best is None else best
    checkpoint.load(checkpoint.folder(run), step, model, None, world=world)
    return model
