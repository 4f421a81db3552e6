"""Optimizers that take dense gradients and the sparse ones of embedding tables alike."""

from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer

from dlrm.errors import unknown
from dlrm.optim.adagrad import Adagrad
from dlrm.optim.rowwise_adagrad import RowWiseAdagrad
from dlrm.optim.sgd import SGD

__all__ = ["OPTIMIZERS", "SGD", "Adagrad", "RowWiseAdagrad", "build"]

OPTIMIZERS: dict[str, type[SGD | Adagrad | RowWiseAdagrad]] = {
    "sgd": SGD,
    "adagrad": Adagrad,
    "rowwise_adagrad": RowWiseAdagrad,
}
"""Name of an optimizer -> its class."""


def build(name: str, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """Return the optimizer of that name over these parameters.

    Raises:
        ConfigError: There is no optimizer of that name.

    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name](parameters, lr=lr)
