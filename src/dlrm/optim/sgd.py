"""Stochastic gradient descent."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from dlrm.ops import reference


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
                    ids, grad = p.grad._indices()[0], p.grad._values()
                    reference.sgd_update(p, ids, grad, group["lr"])
                else:
                    p.add_(p.grad, alpha=-group["lr"])
