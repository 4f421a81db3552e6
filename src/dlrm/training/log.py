"""What a training run tells while it goes on: metrics.jsonl, TensorBoard and the progress bar."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlrm import terminal
from dlrm.errors import DivergedError
from dlrm.training.evaluate import LabelValues
from dlrm.training.progress import Progress
from dlrm.training.sync import sync_loss
from dlrm.training.tensorboard import EventWriter

if TYPE_CHECKING:
    from dlrm.training.loop import Loop


class Log:
    """Lines of metrics.jsonl and the progress bar of one training run.

    All processes of a run log, and the first writes.

    Args:
        loop: The training.
        progress: Where it stands; its loss sum and seconds are kept here.
        title: Title of the progress bar.

    """

    def __init__(self, loop: "Loop", progress: Progress, title: str):
        self.loop, self.progress, self.title = loop, progress, title
        self.events = None
        if loop.config.tensorboard and loop.world.first:
            folder = loop.run.path / "tensorboard"
            self.events = EventWriter(folder, resumed_at=progress.step)
        # Layers that must stay finite.
        self._layers = [m for m in loop.built.model.modules() if isinstance(m, nn.Linear)]
        self._bar = terminal.progress("loss", "rate")

    def __enter__(self) -> "Log":
        self._bar.start()
        self._task = self._bar.add_task(
            self.title, total=self.loop.last_step, completed=self.progress.step, loss="", rate=""
        )
        self._restart()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
        if self.events:
            self.events.close()

    def step(self, loss: Tensor, lr: float) -> None:
        """Note the loss of the step that `progress` has just counted; write a line when due.

        Args:
            loss: What this process has of the mean loss of the batch, a scalar. It is read where a
                line is due, so that steps between lines wait for no device.
            lr: Learning rate of the step.

        Raises:
            DivergedError: The loss or a weight is no longer a number.

        """
        progress = self.progress
        # In float64, whose sum of 100 float32 losses has their digits.
        progress.loss_sum = progress.loss_sum.to(loss.device) + loss
        progress.loss_steps += 1
        self._lr = lr
        self._bar.advance(self._task)
        if progress.step % self.loop.config.log_every == 0 or progress.step == self.loop.last_step:
            self.flush()

    def flush(self) -> None:
        """Write a line about the steps since the last one, if there are any.

        Raises:
            DivergedError: The loss or a weight is no longer a number.

        """
        progress, lr = self.progress, self._lr
        if not progress.loss_steps:
            return
        mean = sync_loss(self.loop.world, progress.loss_sum) / progress.loss_steps
        # The loss alone does not tell: oneDNN's ReLU makes 0 of what is no number.
        if not (math.isfinite(mean) and _finite(self._layers)):
            raise DivergedError(
                f"training has diverged by step {progress.step}, the loss is {mean:g}: try a "
                f"smaller --optim.lr (it is {lr:g}) or --optim.warmup-steps"
            )
        elapsed = time.perf_counter() - self._started
        rate = (progress.samples - self._samples) / elapsed
        progress.elapsed_s += elapsed
        self.loop.run.log(
            "train",
            step=progress.step,
            epoch=progress.epoch,
            samples=progress.samples,
            loss=mean,
            lr=lr,
            samples_per_s=rate,
            loading_share=(self.loop.loader.waited_s - self._waited_s) / elapsed,
            elapsed_s=progress.elapsed_s,
        )
        if self.events:
            self.events.scalars(progress.step, {"train/loss": mean, "train/lr": lr})
        self._bar.update(self._task, loss=f"loss {mean:.4f}", rate=f"{rate:,.0f} samples/s")
        progress.loss_sum, progress.loss_steps = torch.zeros_like(progress.loss_sum), 0
        self._restart()

    def evaluated(self, split: str, values: LabelValues) -> None:
        """Write a line about a split."""
        step, epoch = self.progress.step, self.progress.epoch
        self.loop.run.log("eval", split=split, step=step, epoch=epoch, **values.to_dict())
        if self.events:
            self.events.scalars(step, {f"{split}/{k}": v for k, v in values.flat().items()})

    @contextmanager
    def pause(self, what: str) -> Iterator[None]:
        """Count no time inside as training time; the progress bar shows `what`."""
        self._bar.update(self._task, description=f"{self.title}: {what}")
        began = time.perf_counter()
        waited_s = self.loop.loader.waited_s
        yield
        self._started += time.perf_counter() - began
        self._waited_s += self.loop.loader.waited_s - waited_s
        self._bar.update(self._task, description=self.title)

    def _restart(self) -> None:
        self._started = time.perf_counter()
        self._samples = self.progress.samples
        self._waited_s = self.loop.loader.waited_s


def _finite(layers: list[nn.Linear]) -> bool:
    parameters = [p for layer in layers for p in layer.parameters()]
    if not parameters:
        return True
    # One look at the device for all.
    return bool(torch.stack([p.detach().isfinite().all() for p in parameters]).all())
