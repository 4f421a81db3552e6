"""The butterfly: what each process has for each of the others changes hands, in both directions.

    forward    ids go to the process that keeps their rows, vectors come back
    backward   gradients of the vectors go the way back

An exchange is begun and ended by two operations. What stands between them in a program, such as
the bottom MLP, is computed while the vectors are on their way; and as the backward pass takes the
operations in reverse, the gradients are on their way while it goes through the same in between.

Source: Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation
Systems", arXiv 1906.00091, section 3 (butterfly shuffle).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dlrm.errors import ConfigError

Wait = Callable[[], Tensor]
"""Waits for numbers that are on their way, and returns them."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types in which vectors and gradients travel."""


@dataclass
class Exchange:
    """Exchanges of ids, vectors and gradients with the other processes of a run, counted."""

    rank: int
    """Number of this process."""
    size: int
    """W, the number of processes."""
    group: Any = None
    """Process group of `torch.distributed`; None for its default."""
    dtype: torch.dtype = torch.float32
    """Type in which vectors and gradients travel."""
    samples: tuple[int, ...] = ()
    """Samples that each process has of the present batch."""
    sent_bytes: int = 0
    """Bytes that have left for other processes."""
    waited_s: float = 0.0
    """Seconds that this process has waited for others."""
    anchor: Tensor = field(default_factory=lambda: torch.zeros(0, requires_grad=True))

    def split(self, local_size: int) -> tuple[int, ...]:
        """Return the samples of each process; `own` is how many this one has.

        Raises:
            ConfigError: They are not known, or this process was expected to have others.

        """
        if self.samples and self.samples[self.rank] != local_size:
            raise ConfigError(
                f"{local_size} samples here, where {self.samples[self.rank]} are expected"
            )
        if not self.samples:
            raise ConfigError("samples of the other processes are not known: call the model whole")
        return self.samples

    @property
    def scale(self) -> float:
        """Factor of gradients on their way, a power of two.

        That of a mean over B samples is B times smaller than that of a sample, too small for the
        exponents of float16.
        """
        if self.dtype != torch.float16:
            return 1.0
        return 2.0 ** max(0, sum(self.samples).bit_length() - 1)

    def all_to_all(self, values: Tensor, give: Sequence[int], take: Sequence[int]) -> Wait:
        """Begin to send `give[r]` numbers of `values` (n,) to each rank r, and get `take[r]`.

        Returns what waits for what has arrived.
        """
        values = values.contiguous()
        out = values.new_empty(sum(take))
        self.sent_bytes += (len(values) - give[self.rank]) * values.itemsize
        work: Any = dist.all_to_all_single(
            out, values, list(take), list(give), group=self.group, async_op=True
        )

        def wait(sent: Tensor = values) -> Tensor:
            # What was sent is kept until it has left.
            began = time.perf_counter()
            work.wait()
            self.waited_s += time.perf_counter() - began
            return out

        return wait

    def all_to_all_counts(self, counts: Tensor) -> Tensor:
        """Give each rank r the numbers `counts[r]` of (W, k), and get theirs, (W, k)."""
        k = [counts.shape[1]] * self.size
        return self.all_to_all(counts.flatten(), k, k)().view(self.size, -1)


@dataclass
class AllToAll:
    """One exchange of vectors among all processes: there forwards, and their gradients back."""

    exchange: Exchange
    give: Sequence[int]
    """Numbers for each rank"""
    take: Sequence[int]
    """Numbers from each rank"""
    pending: Wait | None = None

    def begin(self, vectors: Tensor) -> Tensor:
        """Send the vectors, of any shape; returns a token for `end`."""
        return _Begin.apply(vectors, self.exchange.anchor, self)  # pyright: ignore[reportReturnType]

    def end(self, token: Tensor) -> Tensor:
        """Wait for what the others sent, (sum of take,)."""
        return _End.apply(token, self)  # pyright: ignore[reportReturnType]

    def arrived(self) -> Tensor:
        """Wait for what is on its way and return it."""
        assert self.pending is not None
        wait, self.pending = self.pending, None
        return wait()


class _Begin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, anchor: Tensor, transfer: AllToAll) -> Tensor:
        # Without the anchor, a process that keeps no table would not wait for gradients, and the
        # others, which send it none, would wait for it.
        ctx.transfer, ctx.shape, ctx.dtype = transfer, vectors.shape, vectors.dtype
        flat = vectors.flatten().to(transfer.exchange.dtype)
        transfer.pending = transfer.exchange.all_to_all(flat, transfer.give, transfer.take)
        return vectors.new_empty(0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        transfer = ctx.transfer
        arrived = transfer.arrived().to(ctx.dtype)
        if transfer.exchange.scale != 1.0:
            arrived = arrived / transfer.exchange.scale
        return arrived.view(ctx.shape), None, None


class _End(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token: Tensor, transfer: AllToAll) -> Tensor:
        ctx.transfer = transfer
        return transfer.arrived().to(token.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        transfer, (grad,) = ctx.transfer, grads
        if transfer.exchange.scale != 1.0:
            grad = grad * transfer.exchange.scale
        transfer.pending = transfer.exchange.all_to_all(
            grad.to(transfer.exchange.dtype), transfer.take, transfer.give
        )
        return grad.new_empty(0), None
