"""Processes that train a model together, step by step when told to: for timing beside others."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import torch

from dlrm.bench.arch import ARCHS, Arch
from dlrm.bench.batches import rotation
from dlrm.bench.local_step import LEARNING_RATE, fresh_step
from dlrm.bench.processes import start
from dlrm.data.loader import shares
from dlrm.errors import ConfigError
from dlrm.models.dlrm import DLRMConfig
from dlrm.ops.memory import keep_freed_memory
from dlrm.optim.config import OptimConfig
from dlrm.parallel.config import ParallelConfig
from dlrm.parallel.world import World
from dlrm.training.config import TrainConfig
from dlrm.training.sync import sync_loss, sync_stop

DEMO = Arch("demo", (5_000,) * 26, DLRMConfig(dim=16, bottom=(64, 32), top=(64, 32)))
"""The demo's model, over tables that are about as large together as those of its log."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What workers train together, and how."""

    procs: int
    threads: int
    """Threads of each process."""
    batch_size: int
    """Samples of a step, of all processes together."""
    arch: str = "criteo-kaggle"
    rows_scale: float = 1.0
    engine: str = "dlrm"
    sharding: str = "table"
    optim: str = "sgd"
    precision: str = "fp32"
    exchange_dtype: str = "fp32"
    kernels: str = ""
    """What runs on CPUs, as $DLRM_KERNELS says it; empty leaves it."""

    @property
    def architecture(self) -> Arch:
        """The model and its tables."""
        return (DEMO if self.arch == DEMO.name else ARCHS[self.arch]).scaled(self.rows_scale)

    @property
    def config(self) -> TrainConfig:
        """The run that the steps are of."""
        return TrainConfig(
            model=self.architecture.model,
            optim=OptimConfig(name=self.optim, lr=LEARNING_RATE),
            parallel=ParallelConfig(sharding=self.sharding, exchange_dtype=self.exchange_dtype),  # pyright: ignore[reportArgumentType]
            engine=self.engine,  # pyright: ignore[reportArgumentType]
            precision=self.precision,  # pyright: ignore[reportArgumentType]
            device="cpu",
        )


class Workers:
    """A context in which `steps` trains.

    Args:
        task: What is trained, and how.

    Raises:
        ConfigError: A process has ended.

    """

    def __init__(self, task: Task):
        self.task = task
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> "Workers":
        task = self.task
        self._processes += start(
            [__file__, json.dumps(vars(task))],
            task.procs,
            task.threads,
            alone=task.procs == 1 and task.engine == "dlrm",
        )
        self._answers()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # All at once: the first waits for the others.
        for process in self._processes:
            if process.stdin:
                process.stdin.close()
        for process in self._processes:
            process.wait(30)
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()

    def steps(self, count: int) -> list[dict[str, Any]]:
        """Train so many steps; returns what each process says of them."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{count}\n")
            process.stdin.flush()
        return self._answers()

    def _answers(self) -> list[dict[str, Any]]:
        answers = []
        for process in self._processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                why = process.stderr.read() if process.stderr else ""
                raise ConfigError(f"a process of {self.task} has ended: {why}")
            answers.append(json.loads(line))
        return answers


def serve(task: Task) -> None:
    """Be one of the processes: read how many steps to take, take them, write how it went."""
    if task.kernels:
        os.environ["DLRM_KERNELS"] = task.kernels
    keep_freed_memory()
    torch.set_num_threads(task.threads)
    arch = task.architecture
    with World.from_environment("gloo") as world:
        torch.manual_seed(0)
        config = task.config
        train = fresh_step(config, arch.schema, world)
        parts = shares(task.batch_size, world.size)
        first = sum(parts[: world.rank])
        batches = [
            replace(batch.slice(first, first + parts[world.rank]), parts=parts)
            for batch in rotation(arch.schema, task.batch_size, "uniform")
        ]
        exchange = getattr(train.net, "exchange", None)
        at, loss = 0, torch.zeros(())
        print("{}", flush=True)
        for line in sys.stdin:
            sent = waited = 0.0
            if exchange is not None:
                sent, waited = exchange.sent_bytes, exchange.waited_s
            for _ in range(int(line)):
                batch = batches[at % len(batches)]
                at += 1
                stopped = sync_stop(world, False)
                loss = train(batch)
                stopped()
            # As the training loop does where it writes a line of its log.
            answer = {"loss": sync_loss(world, loss), "sent_bytes": 0.0, "waited_s": 0.0}
            if exchange is not None:
                answer["sent_bytes"] = exchange.sent_bytes - sent
                answer["waited_s"] = exchange.waited_s - waited
            print(json.dumps(answer), flush=True)


def main(words: Sequence[str]) -> None:
    """Be one process; its only word is a `Task` as JSON."""
    serve(Task(**json.loads(words[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
