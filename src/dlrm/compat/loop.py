"""The training loop, with the lines that the original prints in it."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from dlrm.batch import Batch
from dlrm.compat.batches import Data, own_part
from dlrm.compat.engine import Engine
from dlrm.compat.flags import Flags
from dlrm.compat.measures import TestPasses, correct
from dlrm.compat.mlperf import MLLog
from dlrm.compat.printing import Progress
from dlrm.compat.saved_model import State
from dlrm.errors import MissingExtraError
from dlrm.parallel.world import World
from dlrm.training.tensorboard import EventWriter


def train(
    flags: Flags, data: Data, engine: Engine, batches: int, world: World, mllog: MLLog
) -> None:
    """Train for all epochs, with a test pass every `--test-freq` batches.

    Random data come from numbers that are saved and loaded with the model. All processes call
    this; the first prints.
    """
    tests, loaded = TestPasses(), engine.loaded
    first_epoch, first_batch = 0, 0
    if loaded is not None:
        tests.accuracy, first_epoch, first_batch = (
            loaded.test_accuracy, loaded.epoch, loaded.iteration
        )  # fmt: skip
    print("time/loss/accuracy (if enabled):")
    progress = Progress(flags, batches, world)
    with ExitStack() as stack:
        events = _events(flags, first_epoch * batches + first_batch) if world.first else None
        if events is not None:
            stack.callback(events.close)
        for epoch, number, whole in _remaining(flags, data, batches, first_epoch, first_batch):
            mllog.epoch(epoch)
            batch = own_part(whole, world)
            # The sample run of 2019 printed the accuracy in training too.
            old = flags.numerics == "readme2019"
            right = correct(engine.logits(batch), batch.labels) if old else 0
            started = time.perf_counter()
            loss = engine.step(batch)
            progress.add(loss, right, len(whole), time.perf_counter() - started)

            last = number + 1 == batches
            should_test = flags.test_freq > 0 and (last or (number + 1) % flags.test_freq == 0)
            if not (should_test or last or (number + 1) % flags.print_freq == 0):
                continue
            train_loss = progress.print(number, epoch)
            if events is not None:
                events.scalars(batches * epoch + number + 1, {"Train/Loss": train_loss})
            if not should_test:
                continue
            print(f"Testing at - {number + 1}/{batches} of epoch {epoch},")
            accuracy, improved = tests.measure(
                flags, engine.logits, data, world, mllog, epoch, (number + 1) / batches
            )
            if events is not None:
                events.scalars(batches * epoch + number + 1, {"Test/Acc": accuracy})
            if improved and flags.save_model:
                print(f"Saving model to {flags.save_model}")
                engine.save(
                    State(
                        epoch=epoch,
                        iteration=number + 1,
                        steps=engine.steps,
                        epochs=flags.nepochs,
                        batches=batches,
                        test_batches=len(data.test),
                        train_loss=train_loss,
                        test_accuracy=accuracy,
                        optimizer=flags.optimizer,
                    )
                )
            if flags.mlperf_logging and (reached := tests.reached(flags)):
                print(f"MLPerf testing {reached} reached, stop training")
                break
    has_goal = max(flags.mlperf_acc_threshold, flags.mlperf_auc_threshold) > 0
    mllog.stop_run(success=not has_goal or tests.reached(flags) is not None)


def _events(flags: Flags, first_step: int) -> EventWriter | None:
    """Return what writes TensorBoard events, if tensorboard is installed.

    Raises:
        MissingExtraError: It is not, but a folder was asked for.

    """
    try:
        return EventWriter(Path(flags.tensor_board_filename), resumed_at=first_step or None)
    except MissingExtraError:
        # The original writes to the default folder unasked, so nobody needs to miss it.
        if flags.tensor_board_filename != Flags().tensor_board_filename:
            raise
        return None


def _remaining(
    flags: Flags, data: Data, batches: int, first_epoch: int, first_batch: int
) -> Iterator[tuple[int, int, Batch]]:
    """Yield epoch, number and batch of what is left of training, from 0 each."""
    for epoch in range(first_epoch, flags.nepochs):
        start = first_batch if epoch == first_epoch else 0
        for number, batch in enumerate(islice(data.train.read(start), batches - start), start):
            yield epoch, number, batch
