"""What a training run says while it goes on: metrics.jsonl, TensorBoard and the progress bar."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from torch import nn

from dlrm import terminal
from dlrm.data.loader import Loader
from dlrm.errors import DivergedError
from dlrm.metrics import MetricValues
from dlrm.run import Run
from dlrm.training.checkpoint import Progress
from dlrm.training.tensorboard import EventWriter


class Log:
    """Lines of metrics.jsonl and the progress bar of one training run.

    Args:
        run: Where metrics.jsonl is.
        progress: Of the run; its loss sum and seconds are kept here.
        loader: Whose waiting is the loading share.
        model: Whose layers must stay finite.
        last_step: Where the progress bar ends.
        every: Steps between lines.
        title: Of the progress bar.
        events: Gets the same numbers; None for no TensorBoard.

    """

    def __init__(
        self,
        run: Run,
        progress: Progress,
        loader: Loader,
        model: nn.Module,
        *,
        last_step: int,
        every: int,
        title: str,
        events: EventWriter | None,
    ):
        self.run, self.progress, self.loader = run, progress, loader
        self._layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
        self.last_step, self.every, self.title, self.events = last_step, every, title, events
        self._bar = terminal.progress("loss", "rate")

    def __enter__(self) -> "Log":
        self._bar.start()
        self._task = self._bar.add_task(
            self.title, total=self.last_step, completed=self.progress.step, loss="", rate=""
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

    def step(self, loss: float, lr: float) -> None:
        """Note the loss of the step that `progress` has just counted; write a line when due.

        Raises:
            DivergedError: The loss or a weight is no longer a number.

        """
        progress = self.progress
        progress.loss_sum += loss
        progress.loss_steps += 1
        self._bar.advance(self._task)
        if progress.step % self.every and progress.step != self.last_step:
            return
        mean = progress.loss_sum / progress.loss_steps
        # The loss alone does not tell: oneDNN's ReLU makes 0 of what is no number.
        if not (math.isfinite(mean) and all(map(_finite, self._layers))):
            raise DivergedError(
                f"training has diverged by step {progress.step}, the loss is {mean:g}: try a "
                f"smaller --optim.lr (it is {lr:g}) or --optim.warmup-steps"
            )
        elapsed = time.perf_counter() - self._started
        rate = (progress.samples - self._samples) / elapsed
        progress.elapsed_s += elapsed
        self.run.log(
            "train",
            step=progress.step,
            epoch=progress.epoch,
            samples=progress.samples,
            loss=mean,
            lr=lr,
            samples_per_s=rate,
            loading_share=(self.loader.waited_s - self._waited_s) / elapsed,
            elapsed_s=progress.elapsed_s,
        )
        if self.events:
            self.events.scalars(progress.step, {"train/loss": mean, "train/lr": lr})
        self._bar.update(self._task, loss=f"loss {mean:.4f}", rate=f"{rate:,.0f} samples/s")
        progress.loss_sum, progress.loss_steps = 0.0, 0
        self._restart()

    def evaluated(self, split: str, values: MetricValues) -> None:
        """Write a line about a split."""
        step, epoch = self.progress.step, self.progress.epoch
        self.run.log("eval", split=split, step=step, epoch=epoch, **values.to_dict())
        if self.events:
            self.events.scalars(step, {f"{split}/{k}": v for k, v in values.to_dict().items()})

    @contextmanager
    def pause(self, what: str) -> Iterator[None]:
        """Do something else that must not count as training time."""
        self._bar.update(self._task, description=f"{self.title}: {what}")
        began = time.perf_counter()
        waited_s = self.loader.waited_s
        yield
        self._started += time.perf_counter() - began
        self._waited_s += self.loader.waited_s - waited_s
        self._bar.update(self._task, description=self.title)

    def _restart(self) -> None:
        self._started = time.perf_counter()
        self._samples = self.progress.samples
        self._waited_s = self.loader.waited_s


def _finite(layer: nn.Linear) -> bool:
    return bool(layer.weight.isfinite().all()) and bool(layer.bias.isfinite().all())
