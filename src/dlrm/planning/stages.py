"""The training step with somebody who watches it pass from operator to operator.

Operators are the parts of a model: its embeddings, and the largest modules without any. On their
way forwards they are watched by hooks; on the way back by hooks of the nodes that they left in
autograd's graph, each of which runs between two calls of ours. On a CPU a call ends when its work
is done, so that a watch which reads the clock knows how long each operator takes within a real
step, with the caches as they are there.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from dlrm.batch import Batch, Jagged
from dlrm.models.standardized import Standardized
from dlrm.nn.embedding import Embeddings
from dlrm.nn.numbers import Numbers

if TYPE_CHECKING:
    from dlrm.training.step import TrainStep

LOSS, DENSE_UPDATE, TABLE_UPDATE = "loss", "dense update", "table update"
"""Stages of a training step beside the operators of its model."""
FORWARD, BACKWARD = "forward", "backward"
"""Phases of a stage; updates have a forward phase alone."""


class Watch(Protocol):
    """Somebody who is told when a stage begins and ends."""

    def enter(self, stage: str, phase: str) -> None:
        """A stage begins."""
        ...

    def leave(self, stage: str, phase: str) -> None:
        """End a stage of a phase."""
        ...


class Clock:
    """A watch that reads the clock; `lap` ends a step."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], float] = defaultdict(float)
        self._began = 0.0
        self.laps: list[dict[tuple[str, str], float]] = []
        """Seconds of (stage, phase), of each step."""

    def enter(self, stage: str, phase: str) -> None:
        """A stage begins."""
        self._began = time.perf_counter()

    def leave(self, stage: str, phase: str) -> None:
        """End a stage of a phase."""
        self._running[stage, phase] += time.perf_counter() - self._began

    def lap(self) -> None:
        """A step has ended."""
        self.laps.append(dict(self._running))
        self._running.clear()

    @property
    def medians(self) -> dict[tuple[str, str], float]:
        """Seconds of each stage, the middle of all steps."""
        names = {name: None for lap in self.laps for name in lap}
        return {name: median(lap.get(name, 0.0) for lap in self.laps) for name in names}


def stages(model: nn.Module) -> dict[str, nn.Module]:
    """Return the operators of a model by their names in it.

    They are its embeddings, and the largest modules without any; numbers that stay as they are, no
    work at all, are none.
    """
    if isinstance(model, Embeddings):
        return {"": model}
    if isinstance(model, Standardized):
        return stages(model.net)
    operators: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if isinstance(child, Numbers) and not child.is_piecewise:
            continue
        called = not isinstance(child, nn.ModuleList | nn.ModuleDict)
        if isinstance(child, Embeddings) or (called and not _holds_embeddings(child)):
            operators[name] = child
        else:
            operators |= {f"{name}.{inner}": module for inner, module in stages(child).items()}
    return operators


def _holds_embeddings(module: nn.Module) -> bool:
    return any(isinstance(inner, Embeddings) for inner in module.modules())


class Watched:
    """A model whose steps are watched within `watching`; without a training step it only scores."""

    def __init__(self, net: nn.Module, train: "TrainStep | None" = None):
        self.net = net
        self.train = train
        self._watch: Watch | None = None
        self._claimed: set[Node] = set()
        self._handles: list[RemovableHandle] = []

    @contextmanager
    def watching(self, watch: Watch) -> Iterator[None]:
        """Let somebody watch every step within."""
        self._watch = watch
        handles = []
        for name, module in stages(self.net).items():
            handles += [
                module.register_forward_pre_hook(self._before(name)),
                module.register_forward_hook(self._after(name)),
            ]
        try:
            if self.train is None:
                yield
            else:
                with self._claiming(self.train), self.train.observed(self._stage):
                    yield
        finally:
            self._watch = None
            for handle in handles:
                handle.remove()

    def step(self, batch: Batch) -> float:
        """Train on a batch; returns the loss."""
        assert self.train is not None
        loss = self.train(batch).item()
        self.forget()
        return loss

    def forget(self) -> None:
        """Let go of the graph of the last step."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._claimed.clear()

    @torch.inference_mode()
    def score(self, batch: Batch) -> Tensor:
        """Return the probabilities (B, K) of a batch."""
        return torch.sigmoid(self.net(batch).float())

    @contextmanager
    def _claiming(self, train: "TrainStep") -> Iterator[None]:
        """Attribute the backward pass of the loss to the stage `LOSS` while inside."""
        unwatched = train.loss

        def loss(logits: Tensor, batch: Batch) -> Tensor:
            value = unwatched(logits, batch)
            self._claim(LOSS, [value], [logits])
            return value

        train.loss = loss
        try:
            yield
        finally:
            train.loss = unwatched

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


def _tensors(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, Batch):
        return [values.dense]
    if isinstance(values, Jagged):
        return [values.values]
    return [t for value in values for t in _tensors(value)] if isinstance(values, tuple) else []
