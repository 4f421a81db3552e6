"""Adam."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dlrm.ops import backend, dense_backend
from dlrm.ops.memory import in_huge_pages
from dlrm.ops.storage import optimizer_state
from dlrm.optim.gradients import Rows, by_kind


class Adam(Optimizer):
    """Adam; lazy in embedding weights, whose rows take part in the steps that look them up.

        m += (1 - beta1) (g - m);  v += (1 - beta2) (g^2 - v)
        w -= lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    t is the number of the step of the optimizer, for every parameter and every row alike: a row
    that comes late meets moments that are zero because it had no gradient, as in dense Adam, and
    not because they are young. Between two lookups, dense Adam would go on moving a row by its
    decaying m, at a cost that grows with the table: `embedding_rows="all"` does that, exactly as
    torch.optim.Adam; a row that every step looks up gets the same in either way.

    Args:
        params: Parameters, dense and embedding weights alike.
        lr: Learning rate.
        beta1: Decay of the mean m of gradients.
        beta2: Decay of the mean v of their squares.
        eps: Keeps the division finite.
        weight_decay: As for `SGD`; not decoupled, so the moments see it.
        embedding_l2: As for `SGD`.
        embedding_rows: As for `SGD`.

    Source: Kingma, Ba, "Adam: A Method for Stochastic Optimization", arXiv 1412.6980.

    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        eps: float = 1e-8,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        weight_decay: float = 0.0,
        embedding_l2: float = 0.0,
        embedding_rows: Rows = "touched",
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
        for group in self.param_groups:
            # With the first parameter, because checkpoints hold the state of parameters.
            self.state[group["params"][0]]["step"] = torch.zeros(1, dtype=torch.int64)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the gradients."""
        for group in self.param_groups:
            lr, eps, beta1, beta2 = (group[key] for key in ("lr", "eps", "beta1", "beta2"))
            t = int(self.state[group["params"][0]]["step"].add_(1))
            weights, grads, tables = by_kind(group["params"])
            states = [self._moments(p) for p in weights]
            firsts, seconds = [s["first"] for s in states], [s["second"] for s in states]
            dense_backend(weights, grads).dense_adam(
                weights, firsts, seconds, grads, lr,
                step=t, beta1=beta1, beta2=beta2, eps=eps, decay=group["weight_decay"],
            )  # fmt: skip
            l2, every_row = group["embedding_l2"], group["embedding_rows"] == "all"
            for p, rows, grad in tables:
                state = self._row_moments(p)
                lower, seed = optimizer_state(p, state)
                backend(p).adam_update(
                    p, state["moments"], rows, grad, lr, step=t, beta1=beta1, beta2=beta2, eps=eps,
                    l2=l2, every_row=every_row, lower=lower, seed=seed,
                )  # fmt: skip

    # Both are made late: whether p is an embedding weight shows only in its first gradient.

    def _moments(self, p: Tensor) -> dict[str, Tensor]:
        state = self.state[p]
        if "first" not in state:
            state["first"], state["second"] = _zeros(p, p.shape), _zeros(p, p.shape)
        return state

    def _row_moments(self, p: Tensor) -> dict[str, Tensor]:
        state = self.state[p]
        if "moments" not in state:
            state["moments"] = _zeros(p, (p.shape[0], 2, p.shape[1]))
        return state


def _zeros(p: Tensor, shape: tuple[int, ...]) -> Tensor:
    wide = torch.promote_types(p.dtype, torch.float32)
    return in_huge_pages(torch.empty(shape, dtype=wide, device=p.device)).zero_()
