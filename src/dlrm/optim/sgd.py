"""Stochastic gradient descent."""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from dlrm.ops import backend, dense_backend
from dlrm.ops.storage import optimizer_state
from dlrm.optim.gradients import Rows, by_kind, l2_rows


class SGD(Optimizer):
    """`w -= lr * g`; of an embedding weight only the rows that were looked up.

    Args:
        params: Parameters, dense and embedding weights alike.
        lr: Learning rate.
        weight_decay: Of dense parameters, biases included: g gains weight_decay * w.
        embedding_l2: Of embedding weights: g[i] gains embedding_l2 * w[i], once a step however
            often row i was looked up.
        embedding_rows: Rows that this reaches, see `dlrm.optim.gradients`.

    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        weight_decay: float = 0.0,
        embedding_l2: float = 0.0,
        embedding_rows: Rows = "touched",
    ):
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "embedding_l2": embedding_l2,
            "embedding_rows": embedding_rows,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the gradients."""
        for group in self.param_groups:
            lr, l2 = group["lr"], group["embedding_l2"]
            weights, grads, tables = by_kind(group["params"])
            kernels = dense_backend(weights, grads)
            kernels.dense_sgd(weights, grads, lr, decay=group["weight_decay"])
            every_row = l2_rows(group)
            for p, rows, grad in tables:
                lower, seed = optimizer_state(p, self.state[p])
                backend(p).sgd_update(
                    p, rows, grad, lr, l2=l2, every_row=every_row, lower=lower, seed=seed
                )
