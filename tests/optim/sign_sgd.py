"""An optimizer in a file of its own, as somebody outside of the project would write it.

Tests train, shard, resume, plan and benchmark with `sign_sgd:SignSGD`, which no other file knows;
this folder must be on the module search path.
"""

from typing import Any

from torch import Tensor

from dlrm.ops.reference.updates import aggregate
from dlrm.ops.storage import load, store
from dlrm.optim import Declaration, Groups, SparseOptimizer
from dlrm.optim.optimizer import zeros


class SignSGD(SparseOptimizer):
    """Steps along the signs of gradients, as long as the gradients of the row have been.

        s[i] = beta1 * s[i] + (1 - beta1) * sqrt(mean(g[i]^2));  w[i] -= lr * s[i] * sign(g[i])

    where g[i] is the sum over the duplicates of row i, and sign(g) = g / (|g| + eps), smooth so
    that rounding elsewhere, as on several processes, stays small. Dense parameters:
    `w -= lr * sign(g)`.

    Args:
        params: Parameter groups.
        lr: Learning rate.
        eps: Size of gradients below which their signs fade.
        beta1: Decay of the length s.
        embedding_l2: As for `dlrm.optim.SGD`.

    """

    declaration = Declaration(state_per_table_row=1, table_flops=7, dense_flops=4)

    def __init__(
        self,
        params: Groups,
        lr: float,
        eps: float = 1e-3,
        *,
        beta1: float = 0.9,
        embedding_l2: float = 0.0,
    ):
        defaults = {"lr": lr, "eps": eps, "beta1": beta1, "embedding_l2": embedding_l2}
        super().__init__(params, defaults)

    def dense_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return no state."""
        return {}

    def table_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the length of each row's gradients, zero: (R,)."""
        return {"length": zeros(weight, weight.shape[:1])}

    def update_dense(
        self, group: dict[str, Any], weights: list[Tensor], grads: list[Tensor]
    ) -> None:
        """Update dense parameters."""
        for weight, given in zip(weights, grads, strict=True):
            grad = given.to(weight.dtype)
            weight.sub_(grad / (grad.abs() + group["eps"]), alpha=group["lr"])

    def update_table(
        self,
        group: dict[str, Any],
        weight: Tensor,
        rows: Tensor,
        grad: Tensor,
        *,
        lower: Tensor | None,
        seed: int,
    ) -> None:
        """Update rows."""
        rows, grad = aggregate(weight, rows, grad, lower, group["embedding_l2"], every_row=False)
        ask = group["mean_squares"]
        squares = grad.square().mean(dim=1) if ask is None else ask(rows, grad)
        lengths = self.state[weight]["length"]
        now = lengths.index_select(0, rows).lerp(squares.sqrt(), 1 - group["beta1"])
        lengths.index_copy_(0, rows, now)
        sign = grad / (grad.abs() + group["eps"])
        values = load(weight, rows, lower) - group["lr"] * now[:, None] * sign
        store(weight, rows, values, lower, seed)
