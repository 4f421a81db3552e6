"""Gradients of the parameters that every process has, summed over processes while they come.

Parameters are packed into buckets, in the order in which gradients are expected. A bucket whose
gradients are all there is summed while the backward pass goes on with the rest of the model. So
does torch's DistributedDataParallel, which takes means and, where a process does not use a
parameter, goes through the whole graph once more in each step.

Source: Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB
2020, arXiv 2006.15704 (buckets, and how large they are).
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Variable

from dlrm.planning.traffic import BUCKET_BYTES, FIRST_BUCKET_BYTES


class GradientSums:
    """Sums of gradients over processes.

    `of(output)` is the output of a model, whose backward pass ends when the gradients of all
    parameters are those of the whole batch, added to those that were there before.

    The parameters are those that every process has, in the order in which the model uses them; they
    become those of the first process. The group is of `torch.distributed`, None for its default.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], group: Any = None):
        self._active = False
        self._begun = 0
        """Buckets whose sum has begun in this backward pass."""
        self._buckets = _buckets([p for p in parameters if p.requires_grad], group)
        for bucket in self._buckets:
            bucket.share()
            for number, parameter in enumerate(bucket.parameters):
                parameter.register_post_accumulate_grad_hook(partial(self._ready, bucket, number))

    def of(self, output: Tensor) -> Tensor:
        """Return the output of a model, such that gradients of the parameters are summed."""
        output.register_hook(self._start)
        return output

    def _start(self, _: Tensor) -> None:
        """Begin the backward pass of the model, at whose end all sums are waited for."""
        for bucket in self._buckets:
            bucket.clear()
        self._active, self._begun = True, 0
        Variable._execution_engine.queue_callback(self._finish)

    def _finish(self) -> None:
        self._active = False
        for bucket in self._buckets[self._begun :]:
            bucket.begin()
        for bucket in self._buckets:
            bucket.end()

    def _ready(self, bucket: "_Bucket", number: int, parameter: Tensor) -> None:
        if not self._active:
            return
        bucket.take(number, parameter)
        # One after another, since a process that uses other parameters completes them otherwise.
        while self._begun < len(self._buckets) and not self._buckets[self._begun].missing:
            self._buckets[self._begun].begin()
            self._begun += 1


class _Bucket:
    """Gradients that are summed together, of parameters of one type and device."""

    def __init__(self, parameters: list[nn.Parameter], group: Any):
        self.parameters, self._group = parameters, group
        sizes = [parameter.numel() for parameter in parameters]
        self._flat = torch.zeros(sum(sizes), dtype=parameters[0].dtype, device=parameters[0].device)
        pairs = zip(self._flat.split(sizes), parameters, strict=True)
        self._grads = [part.view(parameter.shape) for part, parameter in pairs]
        self.missing: set[int] = set()
        """Parameters whose gradients are not there yet"""
        self._earlier: dict[int, Tensor] = {}
        """Gradients of earlier backward passes, which are sums already."""
        self._work: dist.Work | None = None

    @torch.no_grad()
    def share(self) -> None:
        """Give all processes the parameters of the first."""
        for grad, parameter in zip(self._grads, self.parameters, strict=True):
            grad.copy_(parameter)
        dist.broadcast(self._flat, group=self._group, group_src=0)
        for grad, parameter in zip(self._grads, self.parameters, strict=True):
            parameter.copy_(grad)

    def clear(self) -> None:
        """Wait for all gradients of a backward pass, and put those of earlier ones aside."""
        self.missing = set(range(len(self.parameters)))
        self._earlier.clear()
        for number, parameter in enumerate(self.parameters):
            if parameter.grad is not None:
                self._earlier[number] = parameter.grad.clone()
                parameter.grad = None

    def take(self, number: int, parameter: Tensor) -> None:
        """Copy the gradient of a parameter."""
        assert parameter.grad is not None
        self._grads[number].copy_(parameter.grad)
        self.missing.discard(number)

    def begin(self) -> None:
        """Start the sum; a parameter without a gradient here adds zero to it."""
        for number in self.missing:
            self._grads[number].zero_()
        self._work = dist.all_reduce(self._flat, group=self._group, async_op=True)

    def end(self) -> None:
        """Wait for the sum, which then is the gradient of each parameter."""
        assert self._work is not None
        self._work.wait()
        for number, earlier in self._earlier.items():
            self._grads[number].add_(earlier)
        for grad, parameter in zip(self._grads, self.parameters, strict=True):
            parameter.grad = grad


def _buckets(parameters: list[nn.Parameter], group: Any) -> list[_Bucket]:
    buckets: list[_Bucket] = []
    alike: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    # The backward pass comes to the last ones first.
    for parameter in reversed(parameters):
        kind = parameter.dtype, parameter.device
        alike.setdefault(kind, []).append(parameter)
        most = BUCKET_BYTES if buckets else FIRST_BUCKET_BYTES
        if sum(gradient.nbytes for gradient in alike[kind]) >= most:
            buckets.append(_Bucket(alike.pop(kind), group))
    return buckets + [_Bucket(rest, group) for rest in alike.values()]
