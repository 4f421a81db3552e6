"""Adam."""

from typing import Unpack

import torch
from torch import Tensor

from dlrm.ops import backend, dense_backend
from dlrm.optim.declaration import Declaration
from dlrm.optim.optimizer import Group, Groups, RowScope, SparseOptimizer, Stored, zeros


class Adam(SparseOptimizer):
    """Adam; lazy in embedding weights, whose rows take part in the steps that look them up.

        m += (1 - beta1) (g - m);  v += (1 - beta2) (g^2 - v)
        w -= lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    t is the number of the step of the optimizer, for every parameter and every row alike: a row
    that comes late meets moments that are zero because it had no gradient, as in dense Adam, and
    not because they are young. Between two lookups, dense Adam would go on moving a row by its
    decaying m, at a cost that grows with the table: `embedding_rows="all"` does that, exactly as
    torch.optim.Adam; a row that every step looks up gets the same in either way.

    Each parameter group counts its own steps. beta1 and beta2 are the decay of the mean m of
    gradients and of that of their squares, v; eps keeps the division finite. Weight decay is not
    decoupled, so the moments see it; all else is as for `SGD`.

    Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization", arXiv 1412.6980.
    """

    # FBGEMM has none on the CPU. The one of torch that takes sparse gradients is as lazy.
    declaration = Declaration(
        state_per_table_number=2,
        state_per_dense_number=2,
        state_bytes_per_group=8,
        table_flops=11,
        dense_flops=11,
        takes_bags=True,
        torch="SparseAdam",
    )

    def __init__(
        self,
        params: Groups,
        lr: float,
        eps: float = 1e-8,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        weight_decay: float = 0.0,
        embedding_l2: float = 0.0,
        embedding_rows: RowScope = "touched",
    ):
        defaults = {
            "lr": lr,
            "eps": eps,
            "beta1": beta1,
            "beta2": beta2,
            "weight_decay": weight_decay,
            "embedding_l2": embedding_l2,
            "embedding_rows": embedding_rows,
        }
        super().__init__(params, defaults)

    def dense_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return both means, zero."""
        return {"first": zeros(weight), "second": zeros(weight)}

    def table_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return both means of each row side by side, zero: (R, 2, D)."""
        rows, dim = weight.shape
        return {"moments": zeros(weight, (rows, 2, dim))}

    def group_state(self) -> dict[str, Tensor]:
        """Return the number of steps, zero: (1,) int64 on the CPU, where it is read."""
        return {"step": torch.zeros(1, dtype=torch.int64, device="cpu")}

    def start_step(self, group: Group) -> None:
        """Count the step."""
        self.state[group["params"][0]]["step"].add_(1)

    def update_dense(self, group: Group, weights: list[Tensor], grads: list[Tensor]) -> None:
        """Update dense parameters; see `SparseOptimizer.update_dense`."""
        firsts = [self.state[weight]["first"] for weight in weights]
        seconds = [self.state[weight]["second"] for weight in weights]
        dense_backend(weights, grads).dense_adam(
            weights, firsts, seconds, grads, group["lr"], step=self._steps(group),
            beta1=group["beta1"], beta2=group["beta2"], eps=group["eps"],
            decay=group["weight_decay"],
        )  # fmt: skip

    def update_table(
        self, group: Group, weight: Tensor, rows: Tensor, grad: Tensor, **stored: Unpack[Stored]
    ) -> None:
        """Update rows; see `SparseOptimizer.update_table`."""
        backend(weight).adam_update(
            weight, self.state[weight]["moments"], rows, grad, group["lr"],
            step=self._steps(group), beta1=group["beta1"], beta2=group["beta2"], eps=group["eps"],
            l2=group["embedding_l2"], every_row=group["embedding_rows"] == "all", **stored,
        )  # fmt: skip

    def _steps(self, group: Group) -> int:
        return int(self.state[group["params"][0]]["step"])
