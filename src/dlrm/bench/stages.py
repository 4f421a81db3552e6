"""A training step with somebody who watches it pass from operator to operator.

Operators are the parts of a model: its embeddings, and the largest modules without any. On their
way forwards they are watched by hooks; on the way back by hooks of the nodes that they left in
autograd's graph, each of which runs between two calls of ours. On a CPU a call ends when its work
is done, so that a watch which reads the clock knows how long each operator takes within a real
step, with the caches as they are there.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from dlrm.batch import Batch
from dlrm.nn.embedding import Embeddings
from dlrm.training.config import LossConfig
from dlrm.training.loop import compute_loss

FORWARD, BACKWARD = "forward", "backward"
LOSS, DENSE_UPDATE, TABLE_UPDATE = "loss", "dense update", "table update"
"""Stages that are no modules; updates have a forward phase alone."""


class Watch(Protocol):
    """Somebody who is told when a stage begins and ends."""

    def enter(self, stage: str, phase: str) -> None:
        """A stage begins."""
        ...

    def leave(self, stage: str, phase: str) -> None:
        """It ends."""
        ...


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """Return the operators of a model by their names in it.

    They are its embeddings, and the largest modules without any.
    """
    if isinstance(model, Embeddings):
        return {"": model}
    found: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        called = not isinstance(child, nn.ModuleList | nn.ModuleDict)
        if isinstance(child, Embeddings) or (called and not _holds_embeddings(child)):
            found[name] = child
        else:
            found |= {f"{name}.{inner}": module for inner, module in stages(child).items()}
    return found


def _holds_embeddings(module: nn.Module) -> bool:
    return any(isinstance(each, Embeddings) for each in module.modules())


class Watched:
    """A model and its optimizer, whose steps are watched within `watching`.

    Args:
        model: Any of the catalogue.
        optimizer: Of it; None to score only.
        loss: What is minimised.

    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer | None, loss: LossConfig | None = None
    ):
        self.model = model
        self.optimizer = optimizer
        self.loss = loss or LossConfig()
        self._watch: Watch | None = None
        self._claimed: set[Node] = set()
        self._handles: list[RemovableHandle] = []
        self._dense, self._tables = _kinds(model)

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Let somebody watch every step within."""
        self._watch = watch
        handles = []
        for name, module in stages(self.model).items():
            handles += [
                module.register_forward_pre_hook(self._before(name)),
                module.register_forward_hook(self._after(name)),
            ]
        try:
            yield
        finally:
            self._watch = None
            for handle in handles:
                handle.remove()

    def step(self, batch: Batch) -> float:
        """Train on a batch as the training loop does; returns the loss."""
        assert self.optimizer is not None
        logits = self.model(batch)
        with self._stage(LOSS):
            value = compute_loss(self.loss, logits, batch.labels)
        self._claim(LOSS, [value], [logits])
        value.backward()
        self.forget()
        if self._watch is None:
            self.optimizer.step()
        else:
            self._update(self.optimizer)
        self.optimizer.zero_grad()
        return value.item()

    def forget(self) -> None:
        """Let go of the graph of the last step."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._claimed.clear()

    @torch.inference_mode()
    def score(self, batch: Batch) -> Tensor:
        """Return the probabilities (B,) of a batch."""
        return torch.sigmoid(self.model(batch).float())

    def _update(self, optimizer: Optimizer) -> None:
        """Update dense parameters, then tables: what an optimizer does in one call."""
        every = [(p, p.grad) for p in (*self._dense, *self._tables)]
        for name, parameters in ((DENSE_UPDATE, self._dense), (TABLE_UPDATE, self._tables)):
            updated = {id(p) for p in parameters}
            for p, grad in every:
                # What has no gradient is left alone.
                p.grad = grad if id(p) in updated else None
            with self._stage(name):
                optimizer.step()

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        if self._watch is not None:
            self._watch.enter(name, FORWARD)
        yield
        if self._watch is not None:
            self._watch.leave(name, FORWARD)

    def _before(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            if self._watch is not None:
                self._watch.enter(name, FORWARD)

        return hook

    def _after(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._watch is not None:
                self._watch.leave(name, FORWARD)
                self._claim(name, _tensors(output), _tensors(inputs))

        return hook

    def _claim(self, name: str, outputs: Iterable[Tensor], inputs: Iterable[Tensor]) -> None:
        """Watch the nodes of autograd's graph between inputs and outputs."""
        if self._watch is None:
            return
        watch = self._watch
        ends = {tensor.grad_fn for tensor in inputs}
        ahead = [tensor.grad_fn for tensor in outputs]
        while ahead:
            node = ahead.pop()
            if node is None or node in ends or node in self._claimed:
                continue
            self._claimed.add(node)
            self._handles += [
                node.register_prehook(lambda *_: watch.enter(name, BACKWARD)),
                node.register_hook(lambda *_: watch.leave(name, BACKWARD)),
            ]
            ahead += [following for following, _ in node.next_functions]


def _kinds(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters with dense gradients, and those of tables."""
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, Embeddings)
        for parameter in module.parameters()
    }
    every = list(model.parameters())
    return [p for p in every if id(p) not in tables], [p for p in every if id(p) in tables]


def _tensors(of: Any) -> list[Tensor]:
    if isinstance(of, Tensor):
        return [of]
    if isinstance(of, Batch):
        return [of.dense]
    return [tensor for each in of for tensor in _tensors(each)] if isinstance(of, tuple) else []
