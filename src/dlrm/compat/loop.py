"""The training loop, with the lines that the original prints in it."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from math import isnan
from pathlib import Path

from numpy.random import RandomState
from torch import nn
from torch.optim import Optimizer

from dlrm.batch import Batch
from dlrm.compat import saved_model
from dlrm.compat.accuracy import correct, measure_accuracy, thresholded
from dlrm.compat.batches import Data, Share
from dlrm.compat.distributed import parallel, share_of
from dlrm.compat.events import Events
from dlrm.compat.flags import Flags
from dlrm.compat.losses import original_loss
from dlrm.compat.mlperf import MLLog, measure_mlperf
from dlrm.compat.printing import Progress, print_accuracy, print_loaded
from dlrm.compat.saved_model import State
from dlrm.models.dlrm import DLRM
from dlrm.nn.embedding import parameter_groups
from dlrm.optim import build
from dlrm.optim.config import learning_rate
from dlrm.parallel.world import World
from dlrm.training.step import TrainStep

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

    Args:
        flags: Of the run.
        data: Of the run.
        model: Trained in place.
        rng: Where random data come from; saved and loaded with the model.
        batches: Batches in an epoch.
        world: The processes, all of which call this; the first saves and prints.
        mllog: For what `--mlperf-logging` prints.

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
    wanted = max(flags.mlperf_acc_threshold, flags.mlperf_auc_threshold) > 0
    mllog.stop_run(success=not wanted or tests.reached(flags) is not None)


@dataclass(slots=True)
class TestPasses:
    """The best that test passes have come to."""

    __test__ = False
    accuracy: float = 0.0
    auc: float = 0.0

    def measure(
        self,
        flags: Flags,
        net: nn.Module,
        data: Data,
        world: World,
        mllog: MLLog,
        epoch: int,
        share: float,
    ) -> tuple[float, bool]:
        """Measure the test samples after a share of an epoch, counted from 0, and print.

        Returns:
            The accuracy, and whether this is the best pass so far.

        """
        if not flags.mlperf_logging:
            accuracy = measure_accuracy(flags, net, data, world)
            improved, self.accuracy = accuracy > self.accuracy, max(accuracy, self.accuracy)
            print_accuracy(accuracy, self.accuracy)
            return accuracy, improved
        place = {"epoch_num": epoch + 1 + share}
        mllog.start("eval", **place)
        metrics = measure_mlperf(flags, net, data, world)
        improved = metrics.auc > self.auc
        self.accuracy = max(metrics.accuracy, self.accuracy)
        self.auc = max(self.auc, metrics.auc)
        print(metrics.line(self.auc, self.accuracy), flush=True)
        mllog.event("eval_accuracy", None if isnan(metrics.auc) else metrics.auc, **place)
        mllog.stop("eval", **place)
        return metrics.accuracy, improved

    def reached(self, flags: Flags) -> str | None:
        """Return the threshold that the best is above; None where it is above none."""
        thresholds = {
            "accuracy": (self.accuracy, flags.mlperf_acc_threshold),
            "auc": (self.auc, flags.mlperf_auc_threshold),
        }
        for name, (value, threshold) in thresholds.items():
            if 0 < threshold < value:
                return f"{name} threshold {threshold}"
        return None


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

    Args:
        flags: Of the run.
        model: Its parameters are overwritten.
        optimizer: None when the model is only tested.
        rng: Overwritten where training goes on.
        world: The processes, all of which load.

    Raises:
        CheckpointError: The file is missing, damaged, or of another model or optimizer.

    """
    print(f"Loading saved model {flags.load_model}")
    path = Path(flags.load_model)
    state = saved_model.load(path, flags.optimizer, model, optimizer, rng, world)
    print_loaded(state)
    return state
