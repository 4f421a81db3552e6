"""Adagrad."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from dlrm.ops import backend
from dlrm.ops.memory import in_huge_pages
from dlrm.ops.storage import optimizer_state


class Adagrad(Optimizer):
    """`s += g^2; w -= lr * g / (sqrt(s) + eps)`; of an embedding weight only the looked-up rows.

    Args:
        params: Parameters, dense and embedding weights alike.
        lr: Learning rate.
        eps: Keeps the division finite.

    Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods", JMLR 2011.

    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, eps: float = 1e-10):
        super().__init__(params, {"lr": lr, "eps": eps})
        for group in self.param_groups:
            for p in group["params"]:
                wide = torch.promote_types(p.dtype, torch.float32)
                total = torch.empty_like(p, dtype=wide, requires_grad=False)
                self.state[p]["sum"] = in_huge_pages(total).zero_()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the gradients."""
        for group in self.param_groups:
            lr, eps = group["lr"], group["eps"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                total = self.state[p]["sum"]
                if p.grad.is_sparse:
                    rows, grad = p.grad._indices()[0], p.grad._values()
                    lower, seed = optimizer_state(p, self.state[p])
                    backend(p).adagrad_update(p, total, rows, grad, lr, eps, lower=lower, seed=seed)
                else:
                    total.addcmul_(p.grad, p.grad)
                    p.addcdiv_(p.grad, total.sqrt().add_(eps), value=-lr)
