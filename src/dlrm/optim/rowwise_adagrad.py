"""Row-wise Adagrad: one state number a row of an embedding table instead of D."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from dlrm.ops import backend
from dlrm.ops.storage import optimizer_state


class RowWiseAdagrad(Optimizer):
    """`s[i] += mean(g[i]^2); w[i] -= lr * g[i] / (sqrt(s[i]) + eps)` for embedding rows i.

    Other parameters take Adagrad.

    Args:
        params: Parameters, dense and embedding weights alike.
        lr: Learning rate.
        eps: Keeps the division finite.

    Source: Mudigere et al., "Software-Hardware Co-design for Fast and Scalable Training of Deep
    Learning Recommendation Models", arXiv 2104.05158.

    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, eps: float = 1e-10):
        super().__init__(params, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the gradients."""
        for group in self.param_groups:
            lr, eps = group["lr"], group["eps"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                if "sum" not in self.state[p]:
                    # Whether p is an embedding weight shows only in its first gradient.
                    shape = p.shape[:1] if p.grad.is_sparse else p.shape
                    wide = torch.promote_types(p.dtype, torch.float32)
                    self.state[p]["sum"] = torch.zeros(shape, dtype=wide, device=p.device)
                total = self.state[p]["sum"]
                if p.grad.is_sparse:
                    rows, grad = p.grad._indices()[0], p.grad._values()
                    lower, seed = optimizer_state(p, self.state[p])
                    backend(p).rowwise_adagrad_update(
                        p, total, rows, grad, lr, eps, lower=lower, seed=seed
                    )
                else:
                    total.addcmul_(p.grad, p.grad)
                    p.addcdiv_(p.grad, total.sqrt().add_(eps), value=-lr)
