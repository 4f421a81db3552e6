"""Optimizers that TorchRec applies to rows within the backward pass, equal to ours."""

from dataclasses import dataclass
from typing import Literal

from dlrm.errors import ConfigError
from dlrm.optim.config import OptimConfig


@dataclass(frozen=True, slots=True)
class Fused:
    """One of them; see `dlrm.optim` for what it does."""

    name: Literal["sgd", "adagrad", "rowwise_adagrad"]
    eps: float = 1e-10


def fused(config: OptimConfig) -> Fused:
    """Return the fused optimizer that does to rows what the config's own would do.

    Raises:
        ConfigError: FBGEMM does not have it, or not as it is here.

    """
    if config.name == "adam":
        raise ConfigError(
            "optim.name is adam: FBGEMM has none on the CPU; with the engine torchrec choose sgd, "
            "adagrad or rowwise_adagrad"
        )
    if config.embedding_l2:
        raise ConfigError(
            f"optim.embedding_l2 is {config.embedding_l2}: FBGEMM has no L2 that counts a row once "
            "a step; with the engine torchrec it must be 0"
        )
    return Fused(config.name) if config.eps is None else Fused(config.name, config.eps)
