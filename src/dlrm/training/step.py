"""The training step, which everyone calls: the loop, parity, benchmarks, the drop-in.

    batch to the device -> forward -> loss -> backward -> clip -> update, at the schedule's rate

Nothing in it waits for the device: losses are tensors, read where a line of the log is written.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrm.batch import Batch
from dlrm.models.dlrm import DLRM
from dlrm.ops import dlrm as compiled
from dlrm.ops.reference.lookup import sparse_gradient
from dlrm.ops.table_gradient import Gradients, TableGradient
from dlrm.optim.optimizer import SparseOptimizer
from dlrm.parallel.world import ALONE, World
from dlrm.planning.stages import DENSE_UPDATE, LOSS, TABLE_UPDATE
from dlrm.training.clip import clip_gradients
from dlrm.training.device import Transfer
from dlrm.training.draws import Draws
from dlrm.training.loss import Loss, cross_entropy

Observer = Callable[[str], AbstractContextManager[None]]
"""Stage of a step -> what is entered while it runs: `loss`, `dense update`, `table update`."""


class Step(Protocol):
    """A training step on one batch, as the loop calls it; `TrainStep` is one."""

    logits: Tensor
    """(b, K), of the last batch, before its update"""

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        ...

    def __call__(self, batch: Batch) -> Tensor:
        """Train on a batch and return its mean loss, a scalar; see `TrainStep`."""
        ...


class TrainStep:
    """`step(batch) -> loss`, for one model and its optimizer.

    Args:
        net: `forward(batch) -> logits (b, K)`, of the samples of this process.
        optimizer: Optimizer of the model, whose groups are those of
            `dlrm.nn.embedding.parameter_groups`.
        loss: The mean loss of a batch.
        rate: Number of a step, from 1 -> its learning rate; None leaves that of the optimizer.
        clip: Largest norm of all gradients together; 0 for any.
        device: Where the model is.
        steps: Taken before.
        world: The processes that train, whose gradients clip counts together.
        accumulate: Batches whose gradients are added up to one update; `steps` counts updates.
        draws: Lent to torch in every step, for layers that draw from its global generator; None
            where there are none.

    """

    logits: Tensor
    """(b, K), of the last step, before its update"""

    def __init__(
        self,
        net: nn.Module,
        optimizer: Optimizer,
        loss: Loss,
        *,
        rate: Callable[[int], float] | None = None,
        clip: float = 0.0,
        device: torch.device | str = "cpu",
        steps: int = 0,
        world: World = ALONE,
        draws: Draws | None = None,
        accumulate: int = 1,
    ):
        self.draws = draws
        self.net, self.optimizer, self.loss = net, optimizer, loss
        self.rate, self.clip, self.steps = rate, clip, steps
        self.to_device = Transfer(net, device)
        self.world = world
        self.accumulate, self._batches = accumulate, 0
        self._observer: Observer | None = None
        self._kernel: compiled.Step | None = None
        """That of the last batch, if the next one may have its memory."""
        self._found: tuple[SparseOptimizer, Gradients] | None = None
        """The gradients of a batch, until they are applied, where parameters do not have them."""

    @property
    def lr(self) -> float:
        """Learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def __call__(self, batch: Batch) -> Tensor:
        """Train on a batch.

        Args:
            batch: On the CPU or on the device; of several processes, this one's part of it.

        Returns:
            The mean loss of the batch, a scalar on the device without gradient; of a part of one
            what it adds to that mean.

        """
        self.steps += self._batches % self.accumulate == 0
        self._batches += 1
        if self.rate is not None:
            lr = self.rate(self.steps)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
        batch = self.to_device(batch)
        with nullcontext() if self.draws is None else self.draws.lent():
            loss = self._gradients(batch)
        if self._batches % self.accumulate == 0:
            self.update()
        return loss.detach()

    def update(self) -> None:
        """Clip the gradients, apply them and let go of them."""
        if self._found is not None:
            (optimizer, gradients), self._found = self._found, None
            optimizer.apply(gradients)
            return
        if self.clip:
            clip_gradients(self.optimizer.param_groups, self.clip, self.world)
        if self._observer is None:
            self.optimizer.step()
        else:
            self._observed_update()
        self.optimizer.zero_grad()

    @contextmanager
    def observed(self, observer: Observer) -> Iterator[None]:
        """Let somebody watch the stages of every step within."""
        self._observer = observer
        try:
            yield
        finally:
            self._observer = None

    def _gradients(self, batch: Batch) -> Tensor:
        """Compute the gradients of all parameters, and return the loss."""
        if (loss := self._without_autograd(batch)) is not None:
            return loss
        logits = self.net(batch)
        with self._stage(LOSS):
            loss = self._share(logits, batch)
        self.logits = logits.detach()
        loss.backward()
        return loss

    def _without_autograd(self, batch: Batch) -> Tensor | None:
        """Do what `_gradients` does where that is a few calls of kernels, else return None.

        Small batches notice what autograd does between them.
        """
        plain_loss = self.loss is cross_entropy and batch.weights is None and batch.parts is None
        if not (plain_loss and isinstance(self.net, DLRM) and self._observer is None):
            return None
        inputs = self.net.without_autograd(batch)
        if inputs is None or batch.labels.dtype != torch.float32:
            return None
        step = self._kernel
        if step is None or not step.fits(inputs):
            step = compiled.Step(inputs)
        loss, self.logits = step(inputs, batch.labels)
        optimizer = self._alone_with(step.gradients)
        if optimizer is not None:
            self._kernel, self._found = step, (optimizer, step.gradients)
            return loss
        # Whoever sees these gradients may keep them.
        self._kernel = None
        for parameter, found in step.gradients.items():
            if isinstance(found, TableGradient):
                parameter.grad = sparse_gradient(found.rows, found.grad, parameter.shape)
            else:
                parameter.grad = found
        return loss

    def _alone_with(self, gradients: Gradients) -> SparseOptimizer | None:
        """Return the optimizer if nobody else sees these gradients, and they are all it has."""
        optimizer = self.optimizer
        if self.clip or self.accumulate > 1 or not isinstance(optimizer, SparseOptimizer):
            return None
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        theirs = len(weights) == len(gradients) and all(map(gradients.__contains__, weights))
        return optimizer if theirs and not optimizer.watched else None

    def _share(self, logits: Tensor, batch: Batch) -> Tensor:
        if batch.parts is None:
            return self.loss(logits, batch)
        if not len(batch):
            # Zero, and yet the backward pass goes through the model, as it does elsewhere.
            return logits.sum()
        return self.loss(logits, batch) * (len(batch) / sum(batch.parts))

    def _stage(self, name: str) -> AbstractContextManager[None]:
        return nullcontext() if self._observer is None else self._observer(name)

    def _observed_update(self) -> None:
        """Update dense parameters, then tables: what an optimizer does in one call."""
        groups = self.optimizer.param_groups
        for name, sparse in ((DENSE_UPDATE, False), (TABLE_UPDATE, True)):
            self.optimizer.param_groups = [g for g in groups if g.get("sparse", False) == sparse]
            with self._stage(name):
                self.optimizer.step()
        self.optimizer.param_groups = groups
