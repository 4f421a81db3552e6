"""The training loop, with the lines that the original prints in it."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from numpy.random import RandomState
from torch.optim import Optimizer

from dlrm.batch import Batch
from dlrm.compat import saved_model
from dlrm.compat.batches import Data, Share
from dlrm.compat.distributed import parallel, share_of
from dlrm.compat.flags import Flags
from dlrm.compat.measures import TestPasses, correct, original_loss, thresholded
from dlrm.compat.mlperf import MLLog
from dlrm.compat.printing import Progress, print_loaded
from dlrm.compat.saved_model import State
from dlrm.errors import MissingExtraError
from dlrm.models.dlrm import DLRM
from dlrm.nn.embedding import parameter_groups
from dlrm.optim import build
from dlrm.optim.config import learning_rate
from dlrm.parallel.world import World
from dlrm.training.step import TrainStep
from dlrm.training.tensorboard import EventWriter

OPTIMIZERS = {"sgd": "sgd", "adagrad": "adagrad", "rwsadagrad": "rowwise_adagrad"}
"""The original's name of an optimizer -> this project's."""


def train(
    flags: Flags,
    data: Data,
    model: DLRM,
    rng: RandomState,
    batches: int,
    world: World,
    mllog: MLLog,
) -> None:
    """Train for all epochs, with a test pass every `--test-freq` batches.

    The model is trained in place. Random data come from `rng`, which is saved and loaded with the
    model. All processes call this; the first saves and prints.
    """
    mllog.settings(flags)
    optimizer = new_optimizer(flags, model)
    steps_before, first_epoch, first_batch, tests = 0, 0, 0, TestPasses()
    if flags.load_model:
        loaded = load(flags, model, optimizer, rng, world)
        steps_before, tests.accuracy = loaded.steps, loaded.test_accuracy
        first_epoch, first_batch = loaded.epoch, loaded.iteration
    print("time/loss/accuracy (if enabled):")
    progress = Progress(flags, batches, world)
    net, share = thresholded(flags, parallel(model, world)), share_of(world)
    step = TrainStep(
        net,
        optimizer,
        original_loss(flags),
        rate=lambda number: rate(flags, number),
        steps=steps_before,
        accumulate=flags.mlperf_grad_accum_iter if flags.mlperf_logging else 1,
    )
    first_step = first_epoch * batches + first_batch
    with closing(Events(flags, first_step, written=world.first)) as events:
        for epoch, number, batch in remaining(
            flags, data, batches, first_epoch, first_batch, share
        ):
            mllog.epoch(epoch)
            started = time.perf_counter()
            loss = step(batch)
            elapsed_s = time.perf_counter() - started
            samples = sum(batch.parts or (len(batch),))
            progress.add(loss.item(), correct(step.logits, batch.labels), samples, elapsed_s)

            last = number + 1 == batches
            should_test = flags.test_freq > 0 and (last or (number + 1) % flags.test_freq == 0)
            if not (should_test or last or (number + 1) % flags.print_freq == 0):
                continue
            train_loss = progress.print(number, epoch)
            events.add("Train/Loss", train_loss, batches * epoch + number + 1)
            if not should_test:
                continue
            print(f"Testing at - {number + 1}/{batches} of epoch {epoch},")
            accuracy, improved = tests.measure(
                flags, net, data, world, mllog, epoch, (number + 1) / batches
            )
            events.add("Test/Acc", accuracy, batches * epoch + number + 1)
            if improved and flags.save_model:
                print(f"Saving model to {flags.save_model}")
                state = saved_model.State(
                    epoch=epoch,
                    iteration=number + 1,
                    steps=step.steps,
                    epochs=flags.nepochs,
                    batches=batches,
                    test_batches=len(data.test),
                    train_loss=train_loss,
                    test_accuracy=accuracy,
                    optimizer=flags.optimizer,
                )
                saved_model.save(Path(flags.save_model), state, model, optimizer, rng, world)
            if flags.mlperf_logging and (reached := tests.reached(flags)):
                print(f"MLPerf testing {reached} reached, stop training")
                break
    has_goal = max(flags.mlperf_acc_threshold, flags.mlperf_auc_threshold) > 0
    mllog.stop_run(success=not has_goal or tests.reached(flags) is not None)


class Events:
    """TensorBoard events in the folder of `--tensor-board-filename`, if tensorboard is installed.

    `first_step` is the step that a loaded model was saved at, else 0; `written` says whether this
    process writes.

    Raises:
        MissingExtraError: A folder was asked for, but tensorboard is not installed.

    """

    def __init__(self, flags: Flags, first_step: int, *, written: bool = True):
        folder = flags.tensor_board_filename
        self.writer = None
        if not written:
            return
        try:
            self.writer = EventWriter(Path(folder), resumed_at=first_step or None)
        except MissingExtraError:
            # The original writes to the default folder unasked, so nobody needs to miss it.
            if folder != Flags().tensor_board_filename:
                raise

    def add(self, name: str, number: float, step: int) -> None:
        """Write a number."""
        if self.writer is not None:
            self.writer.scalars(step, {name: number})

    def close(self) -> None:
        """End the file."""
        if self.writer is not None:
            self.writer.close()


def new_optimizer(flags: Flags, model: DLRM) -> Optimizer:
    """Return what `--optimizer` names, for all parameters that this process keeps."""
    return build(OPTIMIZERS[flags.optimizer], parameter_groups(model), flags.learning_rate)


def remaining(
    flags: Flags, data: Data, batches: int, first_epoch: int, first_batch: int, share: Share
) -> Iterator[tuple[int, int, Batch]]:
    """Yield epoch, number and a share of the batch of what is left of training, from 0 each."""
    for epoch in range(first_epoch, flags.nepochs):
        start = first_batch if epoch == first_epoch else 0
        left = data.train.read(start, share)
        for number, batch in zip(range(start, batches), left, strict=False):
            yield epoch, number, batch


def rate(flags: Flags, step: int) -> float:
    """Return the learning rate of a step, counted from 1.

    As in the original, warm-up that is followed by decay stays at its last step until the decay
    starts, a little below the learning rate.
    """
    warmup, decay_start = flags.lr_num_warmup_steps, flags.lr_decay_start_step
    if flags.lr_num_decay_steps and 0 < warmup <= step < decay_start:
        step = warmup - 1
    return learning_rate(
        step,
        flags.learning_rate,
        warmup_steps=warmup,
        decay_start=decay_start,
        decay_steps=flags.lr_num_decay_steps,
    )


def load(
    flags: Flags, model: DLRM, optimizer: Optimizer | None, rng: RandomState, world: World
) -> State:
    """Load the file of `--load-model` and print where it was saved.

    Without an optimizer the model is only tested. All processes load.

    Raises:
        CheckpointError: The file is missing, damaged, or of another model or optimizer.

    """
    print(f"Loading saved model {flags.load_model}")
    path = Path(flags.load_model)
    state = saved_model.load(path, flags.optimizer, model, optimizer, rng, world)
    print_loaded(state)
    return state
