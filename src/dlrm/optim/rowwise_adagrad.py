"""Row-wise Adagrad: one state number a row of an embedding table instead of D."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrm.ops import backend, dense_backend
from dlrm.ops.storage import optimizer_state
from dlrm.optim.gradients import Rows, by_kind, l2_rows


class RowWiseAdagrad(Optimizer):
    """`s[i] += mean(g[i]^2); w[i] -= lr * g[i] / (sqrt(s[i]) + eps)` for embedding rows i.

    Other parameters take Adagrad.

    Args:
        params: Parameters, dense and embedding weights alike.
        lr: Learning rate.
        eps: Keeps the division finite.
        weight_decay: As for `SGD`.
        embedding_l2: As for `SGD`.
        embedding_rows: As for `SGD`.

    Source: Mudigere et al., "Software-Hardware Co-design for Fast and Scalable Training of Deep
    Learning Recommendation Models", arXiv 2104.05158.

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

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the gradients."""
        for group in self.param_groups:
            lr, eps, l2 = group["lr"], group["eps"], group["embedding_l2"]
            weights, grads, tables = by_kind(group["params"])
            sums = [self._sum(p, p.shape) for p in weights]
            kernels = dense_backend(weights, grads)
            kernels.dense_adagrad(weights, sums, grads, lr, eps, decay=group["weight_decay"])
            every_row = l2_rows(group)
            for p, rows, grad in tables:
                lower, seed = optimizer_state(p, self.state[p])
                # Of rows whose other columns other processes keep.
                mean_squares = vars(p).get("mean_squares")
                backend(p).rowwise_adagrad_update(
                    p, self._sum(p, p.shape[:1]), rows, grad, lr, eps,
                    l2=l2, every_row=every_row, lower=lower, seed=seed, mean_squares=mean_squares,
                )  # fmt: skip

    def _sum(self, p: Tensor, shape: torch.Size) -> Tensor:
        # Made late: whether p is an embedding weight shows only in its first gradient.
        state = self.state[p]
        if "sum" not in state:
            wide = torch.promote_types(p.dtype, torch.float32)
            state["sum"] = torch.zeros(shape, dtype=wide, device=p.device)
        return state["sum"]
