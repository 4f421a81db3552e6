"""Adagrad, with sums of squares of each number or of each row of a table."""

from typing import Unpack

from torch import Tensor

from dlrm.ops import backend, dense_backend
from dlrm.optim.declaration import Declaration
from dlrm.optim.optimizer import Group, Groups, RowScope, SparseOptimizer, Stored, l2_rows, zeros


class Adagrad(SparseOptimizer):
    """`s += g^2; w -= lr * g / (sqrt(s) + eps)`; of an embedding weight only the looked-up rows.

    eps keeps the division finite; all else is as for `SGD`.

    Source: Duchi, Hazan, Singer, "Adaptive Subgradient Methods", JMLR 2011.
    """

    declaration = Declaration(
        state_per_table_number=1,
        state_per_dense_number=1,
        table_flops=7,
        dense_flops=7,
        takes_bags=True,
        fbgemm="EXACT_ADAGRAD",
        torch="Adagrad",
    )

    def __init__(
        self,
        params: Groups,
        lr: float,
        eps: float = 1e-10,
        *,
        weight_decay: float = 0.0,
        embedding_l2: float = 0.0,
        embedding_rows: RowScope = "touched",
    ):
        defaults = {
            "lr": lr,
            "eps": eps,
            "weight_decay": weight_decay,
            "embedding_l2": embedding_l2,
            "embedding_rows": embedding_rows,
        }
        super().__init__(params, defaults)

    def dense_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the sums of squares, zero."""
        return {"sum": zeros(weight)}

    def table_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the sums of squares, zero: (R, D)."""
        return {"sum": zeros(weight)}

    def update_dense(self, group: Group, weights: list[Tensor], grads: list[Tensor]) -> None:
        """Update dense parameters; see `SparseOptimizer.update_dense`."""
        sums = [self.state[weight]["sum"] for weight in weights]
        dense_backend(weights, grads).dense_adagrad(
            weights, sums, grads, group["lr"], group["eps"], decay=group["weight_decay"]
        )

    def update_table(
        self, group: Group, weight: Tensor, rows: Tensor, grad: Tensor, **stored: Unpack[Stored]
    ) -> None:
        """Update rows; see `SparseOptimizer.update_table`."""
        backend(weight).adagrad_update(
            weight, self.state[weight]["sum"], rows, grad, group["lr"], group["eps"],
            l2=group["embedding_l2"], every_row=l2_rows(group), **stored,
        )  # fmt: skip


class RowWiseAdagrad(Adagrad):
    """`s[i] += mean(g[i]^2); w[i] -= lr * g[i] / (sqrt(s[i]) + eps)` for embedding rows i.

    Other parameters take Adagrad, and arguments are the same. Where a parameter group has
    `mean_squares`, the mean is over columns that other processes keep, too.

    Source: Mudigere et al., "Software-Hardware Co-design for Fast and Scalable Training of Deep
    Learning Recommendation Models", arXiv 2104.05158.
    """

    declaration = Declaration(
        state_per_table_row=1,
        state_per_dense_number=1,
        table_flops=5,
        dense_flops=7,
        takes_bags=True,
        fbgemm="EXACT_ROWWISE_ADAGRAD",
    )

    def table_state(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the sums of mean squares, zero: (R,)."""
        return {"sum": zeros(weight, weight.shape[:1])}

    def update_table(
        self, group: Group, weight: Tensor, rows: Tensor, grad: Tensor, **stored: Unpack[Stored]
    ) -> None:
        """Update rows; see `SparseOptimizer.update_table`."""
        backend(weight).rowwise_adagrad_update(
            weight, self.state[weight]["sum"], rows, grad, group["lr"], group["eps"],
            l2=group["embedding_l2"], every_row=l2_rows(group), **stored,
            mean_squares=group["mean_squares"],
        )  # fmt: skip
