"""Stochastic gradient descent."""

from typing import Unpack

from torch import Tensor

from dlrm.ops import backend, dense_backend
from dlrm.optim.declaration import Declaration
from dlrm.optim.optimizer import Group, Groups, RowScope, SparseOptimizer, Stored, l2_rows


class SGD(SparseOptimizer):
    """`w -= lr * g`; of an embedding weight only the rows that were looked up.

    Args:
        params: Parameter groups, see `SparseOptimizer`.
        lr: Learning rate.
        weight_decay: L2 of dense parameters, biases included: g gains weight_decay * w.
        embedding_l2: Of embedding weights: g[i] gains embedding_l2 * w[i], once a step however
            often row i was looked up.
        embedding_rows: Rows that this reaches, see `RowScope`.

    """

    declaration = Declaration(
        table_flops=2,
        dense_flops=2,
        adds_up_rows=False,
        takes_bags=True,
        fbgemm="EXACT_SGD",
        torch="SGD",
    )

    def __init__(
        self,
        params: Groups,
        lr: float,
        *,
        weight_decay: float = 0.0,
        embedding_l2: float = 0.0,
        embedding_rows: RowScope = "touched",
    ):
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "embedding_l2": embedding_l2,
            "embedding_rows": embedding_rows,
        }
        super().__init__(params, defaults)

    def dense_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return no state."""
        return {}

    def table_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return no state."""
        return {}

    def update_dense(self, group: Group, weights: list[Tensor], grads: list[Tensor]) -> None:
        """Update dense parameters; see `SparseOptimizer.update_dense`."""
        kernels = dense_backend(weights, grads)
        kernels.dense_sgd(weights, grads, group["lr"], decay=group["weight_decay"])

    def update_table(
        self, group: Group, weight: Tensor, rows: Tensor, grad: Tensor, **stored: Unpack[Stored]
    ) -> None:
        """Update rows; see `SparseOptimizer.update_table`."""
        backend(weight).sgd_update(
            weight, rows, grad, group["lr"], l2=group["embedding_l2"], every_row=l2_rows(group),
            **stored,
        )  # fmt: skip
