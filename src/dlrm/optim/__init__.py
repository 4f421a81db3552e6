"""Optimizers that take dense gradients and the sparse ones of embedding tables alike.

Each is a file: its update, what it keeps of rows and of dense parameters, what it costs.
"""

from inspect import isabstract, signature

from dlrm.catalogue import find as find_in
from dlrm.errors import ConfigError
from dlrm.optim.adagrad import Adagrad, RowWiseAdagrad
from dlrm.optim.adam import Adam
from dlrm.optim.declaration import Declaration
from dlrm.optim.optimizer import Groups, RowScope, SparseOptimizer
from dlrm.optim.sgd import SGD

__all__ = [
    "OPTIMIZERS",
    "RATES",
    "SGD",
    "Adagrad",
    "Adam",
    "Declaration",
    "Groups",
    "RowScope",
    "RowWiseAdagrad",
    "SparseOptimizer",
    "build",
    "find",
]

OPTIMIZERS: dict[str, type[SparseOptimizer]] = {
    "sgd": SGD,
    "adagrad": Adagrad,
    "rowwise_adagrad": RowWiseAdagrad,
    "adam": Adam,
}
"""Name of an optimizer -> its class."""


RATES = {"sgd": 0.1, "adagrad": 0.01, "rowwise_adagrad": 0.01, "adam": 0.001}
"""Name of an optimizer -> a learning rate that suits it where nothing else is known."""


def find(name: str) -> type[SparseOptimizer]:
    """Return the class of an optimizer.

    `name` is a key of `OPTIMIZERS`, or `module:Class`.

    Raises:
        ConfigError: There is none of that name, or it is none: lists the choices.

    """
    cls = find_in("optimizer", name, OPTIMIZERS)
    if not (isinstance(cls, type) and issubclass(cls, SparseOptimizer)):
        raise ConfigError(f"optimizer {name} is no subclass of dlrm.optim.SparseOptimizer")
    if isabstract(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise ConfigError(f"optimizer {name} does not define {missing}")
    if not isinstance(getattr(cls, "declaration", None), Declaration):
        raise ConfigError(f"optimizer {name} has no declaration, see dlrm.optim.Declaration")
    return cls


def build(name: str, groups: Groups, lr: float, **options: float | str | None) -> SparseOptimizer:
    """Return the optimizer of that name over these parameter groups.

    Options are those of its class, such as eps; None leaves its own.

    Raises:
        ConfigError: There is no such optimizer, or it does not take one of the options.

    """
    cls = find(name)
    given = {option: value for option, value in options.items() if value is not None}
    taken = signature(cls).parameters
    for option in given:
        if option not in taken:
            choices = [key for key in taken if key not in ("params", "lr")]
            raise ConfigError(f"optimizer {name} takes no {option}; it takes {', '.join(choices)}")
    return cls(groups, lr, **given)  # pyright: ignore[reportCallIssue, reportArgumentType]
