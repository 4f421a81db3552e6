"""Optimizers that take dense gradients and the sparse ones of embedding tables alike."""

from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer

from dlrm.errors import unknown
from dlrm.optim.adagrad import Adagrad
from dlrm.optim.adam import Adam
from dlrm.optim.gradients import Rows
from dlrm.optim.rowwise_adagrad import RowWiseAdagrad
from dlrm.optim.sgd import SGD

__all__ = ["OPTIMIZERS", "SGD", "Adagrad", "Adam", "RowWiseAdagrad", "build"]

OPTIMIZERS: dict[str, type[SGD | Adagrad | RowWiseAdagrad | Adam]] = {
    "sgd": SGD,
    "adagrad": Adagrad,
    "rowwise_adagrad": RowWiseAdagrad,
    "adam": Adam,
}
"""Name of an optimizer -> its class."""


def build(
    name: str,
    parameters: Iterable[nn.Parameter],
    lr: float,
    *,
    eps: float | None = None,
    beta1: float = 0.9,
    beta2: float = 0.999,
    weight_decay: float = 0.0,
    embedding_l2: float = 0.0,
    embedding_rows: Rows = "touched",
) -> Optimizer:
    """Return the optimizer of that name over these parameters.

    Args:
        name: A key of `OPTIMIZERS`.
        parameters: Parameters, dense and embedding weights alike.
        lr: Learning rate.
        eps: Of Adagrad and Adam, None for their own.
        beta1: Of Adam.
        beta2: Of Adam.
        weight_decay: See `SGD`, also for the rest.
        embedding_l2: L2 of embedding weights.
        embedding_rows: Rows that take part in a step.

    Raises:
        ConfigError: There is no optimizer of that name.

    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    options: dict[str, float | str] = {
        "weight_decay": weight_decay,
        "embedding_l2": embedding_l2,
        "embedding_rows": embedding_rows,
    }
    if name != "sgd" and eps is not None:
        options["eps"] = eps
    if name == "adam":
        options |= {"beta1": beta1, "beta2": beta2}
    return OPTIMIZERS[name](parameters, lr, **options)  # pyright: ignore[reportArgumentType]
