"""Stochastic gradient descent."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from dlrm.ops import backend
from dlrm.ops.storage import optimizer_state


class SGD(Optimizer):
    """`w -= lr * g`; of an embedding weight only the rows that were looked up.

    Args:
        params: Parameters, dense and embedding weights alike.
        lr: Learning rate.

    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    rows, grad = p.grad._indices()[0], p.grad._values()
                    lower, seed = optimizer_state(p, self.state[p])
                    backend(p).sgd_update(p, rows, grad, group["lr"], lower=lower, seed=seed)
                else:
                    p.add_(p.grad, alpha=-group["lr"])
