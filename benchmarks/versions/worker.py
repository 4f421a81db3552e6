"""One version of dlrm in a process, told by benchmarks/before_after.py what to do.

    PYTHONPATH=CHECKOUT/src python benchmarks/versions/worker.py

Each line on standard input is a JSON object, and is answered by one on standard output:

    {"do": "where"}                                  says where its code is
    {"do": "begin", ...}                             builds the model, draws the batches, and says
                                                     the losses of the first steps
    {"do": "steps", "batch_size": B, "steps": n}     trains on so many batches
    {"do": "command", "words": [...]}                runs a command line of `dlrm`

A step is what the training loop of that version does with a batch. Versions differ in how it is
written: there is one dialect for those before `TrainStep`, and one for those since.
"""

import io
import json
import sys
import zlib
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ROWS = 1 << 18
"""Of a table, that are drawn at a time."""
SCALE = 0.05
"""Standard deviation of the parameters."""


class Since:
    """The step of versions that have `TrainStep`."""

    def __init__(self, task: dict[str, Any]):
        from dlrm.batch import Batch
        from dlrm.metrics import Metrics
        from dlrm.parallel.world import ALONE
        from dlrm.schema import Schema
        from dlrm.training.build import build, optimizer_of
        from dlrm.training.loss import loss_function
        from dlrm.training.step import TrainStep
        from dlrm.training.sync import sync_stop

        config = config_of(task)
        self.world, self.sync_stop = ALONE, sync_stop
        schema = Schema.one_hot(task["num_dense"], task["num_embeddings"])
        built = build(config, schema, self.world)
        self.model, self.batch, self.fresh = built.model, Batch, Metrics
        self.step = TrainStep(
            built.net,
            optimizer_of(config, built),
            loss_function(config.loss),
            rate=lambda number: config.optim.rate(number, sys.maxsize),
            clip=config.clip,
        )

    def __call__(self, batch: Any, seen: Any) -> Tensor:
        """Train on a batch and note its predictions; returns the loss."""
        stopped = self.sync_stop(self.world, False)
        loss = self.step(batch)
        stopped()
        seen.update(self.step.logits, batch.labels, batch.weights)
        return loss

    def new_batch(self, dense: Tensor, ids: Tensor, labels: Tensor) -> Any:
        """Return a batch of this version."""
        return self.batch(dense, ids, labels[:, None])


class Before:
    """The step of versions before `TrainStep`."""

    def __init__(self, task: dict[str, Any]):
        from dlrm.batch import Batch
        from dlrm.metrics import Metrics
        from dlrm.training.build import build, optimizer_of

        # What this version may not have.
        worlds: Any = import_module("dlrm.parallel.world")
        schemas: Any = import_module("dlrm.schema")
        self.batch_loss: Any = import_module("dlrm.training.loop").batch_loss
        self.votes: Any = import_module("dlrm.training.votes").votes
        self.config, self.world = config_of(task), worlds.World.alone()
        schema = schemas.Schema(
            dense=tuple(schemas.DenseFeature(name=f"I{i + 1}") for i in range(task["num_dense"])),
            categorical=tuple(
                schemas.CategoricalFeature(name=f"C{t + 1}", rows=n)
                for t, n in enumerate(task["num_embeddings"])
            ),
        )
        built = build(self.config, schema, self.world)
        self.model, self.net, self.batch, self.fresh = built.model, built.net, Batch, Metrics
        self.optimizer = optimizer_of(self.config, built)
        self.number = 0

    def __call__(self, batch: Any, seen: Any) -> Tensor:
        """Train on a batch and note its predictions; returns the loss."""
        self.number += 1
        rate = self.config.optim.rate(self.number, sys.maxsize)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        logits = self.net(batch)
        value = self.batch_loss(self.config.loss, logits, batch)
        voted = self.votes(self.world, value.item(), False)
        value.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        seen.update(logits.detach().numpy(), batch.labels.numpy())
        voted()
        return value.detach()

    def new_batch(self, dense: Tensor, ids: Tensor, labels: Tensor) -> Any:
        """Return a batch of this version."""
        return self.batch(dense, ids, labels)


def config_of(task: dict[str, Any]) -> Any:
    """Return the config of a run, which all versions write alike."""
    from dlrm.models.dlrm import DLRMConfig
    from dlrm.optim.config import OptimConfig
    from dlrm.training.config import TrainConfig

    return TrainConfig(
        model=DLRMConfig(dim=task["dim"], bottom=tuple(task["bottom"]), top=tuple(task["top"])),
        optim=OptimConfig(name=task["optim"], lr=task["lr"]),
        precision=task["precision"],
    )


class Trainer:
    """A model of this version, and what it trains on: equal in all versions.

    Args:
        task: What `begin` says: the model, and how many batches of each size rotate.

    """

    def __init__(self, task: dict[str, Any]):
        from dlrm.ops.memory import keep_freed_memory

        # As the training loop does.
        keep_freed_memory()
        dialect = Since if find_spec("dlrm.training.step") else Before
        self.step: Any = dialect(task)
        draw_parameters(self.step.model)
        self.batches = {size: list(self._draw(task, size, n)) for size, n in task["batches"]}
        self.endless = {size: cycle(batches) for size, batches in self.batches.items()}

    def _draw(self, task: dict[str, Any], size: int, count: int) -> Iterator[Any]:
        rng = np.random.default_rng(size)
        sizes = np.array(task["num_embeddings"])
        for _ in range(count):
            dense = np.log1p(rng.pareto(0.7, (size, task["num_dense"])).clip(0, 60_000))
            ids = rng.integers(0, sizes, (size, len(sizes)))
            labels = rng.random(size) < 0.25
            yield self.step.new_batch(
                torch.from_numpy(dense.astype(np.float32)),
                torch.from_numpy(ids.astype(np.int32)),
                torch.from_numpy(labels.astype(np.float32)),
            )

    def train(self, size: int, steps: int) -> list[float]:
        """Train on the next batches of a size, and return the losses."""
        seen = self.step.fresh()
        losses = [self.step(batch, seen) for batch in islice(self.endless[size], steps)]
        return torch.stack(losses).tolist()


@torch.no_grad()
def draw_parameters(model: nn.Module) -> None:
    """Give every parameter numbers that depend on its name alone."""
    for name, values in model.named_parameters():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        for part in values.detach().split(ROWS):
            drawn = rng.standard_normal(tuple(part.shape), np.float32) * np.float32(SCALE)
            part.copy_(torch.from_numpy(drawn))


def command(words: list[str]) -> dict[str, Any]:
    """Run a command line of `dlrm` and return its exit status."""
    from dlrm import cli

    with redirect_stdout(io.StringIO()):
        return {"status": cli.main(words)}


def main() -> None:
    """Do what lines say until there are no more."""
    trainer: Trainer | None = None
    for line in sys.stdin:
        task = json.loads(line)
        match task["do"]:
            case "where":
                import dlrm

                answer: dict[str, Any] = {"path": dlrm.__file__}
            case "begin":
                trainer = Trainer(task)
                answer = {"losses": trainer.train(min(trainer.batches), task["compared"])}
            case "steps":
                assert trainer is not None
                trainer.train(task["batch_size"], task["steps"])
                answer = {}
            case _:
                answer = command(task["words"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
