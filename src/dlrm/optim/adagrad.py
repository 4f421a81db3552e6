"""Adagrad."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from dlrm.ops import backend, dense_backend
from dlrm.ops.memory import in_huge_pages
from dlrm.ops.storage import optimizer_state
from dlrm.optim.gradients import Rows, by_kind, l2_rows


class Adagrad(Optimizer):
    """`s += g^2; w -= lr * g / (sqrt(s) + eps)`; of an embedding weight only the looked-up rows.

    Args:
        params: Parameters, dense and embedding weights alike.
        lr: Learning rate.
        eps: Keeps the division finite.
        weight_decay: As for `SGD`.
        embedding_l2: As for `SGD`.
        embedding_rows: As for `SGD`.

    Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods", JMLR 2011.

    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        eps: float = 1e-10,
        *,
        weight_decay: float = 0.0,
        embedding_l2: float = 0.0,
        embedding_rows: Rows = "touched",
    ):
        defaults = {
            "lr": lr,
            "eps": eps,
            "weight_decay": weight_decay,
            "embedding_l2": embedding_l2,
            "embedding_rows": embedding_rows,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            for p in group["params"]:
                wide = torch.promote_types(p.dtype, torch.float32)
                total = torch.empty_like(p, dtype=wide, requires_grad=False)
                self.state[p]["sum"] = in_huge_pages(total).zero_()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the gradients."""
        for group in self.param_groups:
            lr, eps, l2 = group["lr"], group["eps"], group["embedding_l2"]
            weights, grads, tables = by_kind(group["params"])
            sums = [self.state[p]["sum"] for p in weights]
            kernels = dense_backend(weights, grads)
            kernels.dense_adagrad(weights, sums, grads, lr, eps, decay=group["weight_decay"])
            every_row = l2_rows(group)
            for p, rows, grad in tables:
                lower, seed = optimizer_state(p, self.state[p])
                backend(p).adagrad_update(
                    p, self.state[p]["sum"], rows, grad, lr, eps,
                    l2=l2, every_row=every_row, lower=lower, seed=seed,
                )  # fmt: skip
