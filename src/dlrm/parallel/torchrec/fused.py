"""Tables whose rows TorchRec updates within the backward pass, by optimizers equal to ours.

Nothing here needs TorchRec.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dlrm.errors import ConfigError
from dlrm.optim import OPTIMIZERS, find
from dlrm.optim.config import OptimConfig
from dlrm.parallel.collection import DistributedCollection


@dataclass(frozen=True, slots=True)
class Fused:
    """An optimizer that FBGEMM has, too; see `dlrm.optim` for what it does."""

    name: str
    """Name of ours."""
    eps: float = 1e-10

    @property
    def fbgemm(self) -> str:
        """FBGEMM's name of it, e.g. `EXACT_SGD`."""
        fbgemm = find(self.name).declaration.fbgemm
        assert fbgemm is not None
        return fbgemm

    @property
    def has_sum(self) -> bool:
        """Whether it keeps sums of squares."""
        return self.has_row_sum or find(self.name).declaration.state_per_table_number == 1

    @property
    def has_row_sum(self) -> bool:
        """Whether it keeps one such sum a row."""
        return find(self.name).declaration.state_per_table_row == 1


def fused(config: OptimConfig) -> Fused:
    """Return the fused optimizer that does to rows what the config's own would do.

    Raises:
        ConfigError: FBGEMM does not have it, or not as it is here.

    """
    if find(config.name).declaration.fbgemm is None:
        choices = [name for name, cls in OPTIMIZERS.items() if cls.declaration.fbgemm]
        raise ConfigError(
            f"optim.name is {config.name}: FBGEMM has none on the CPU; with the engine torchrec "
            f"choose {', '.join(choices[:-1])} or {choices[-1]}"
        )
    if config.embedding_l2:
        raise ConfigError(
            f"optim.embedding_l2 is {config.embedding_l2}: FBGEMM has no L2 that counts a row once "
            "a step; with the engine torchrec it must be 0"
        )
    return Fused(config.name) if config.eps is None else Fused(config.name, config.eps)


class FusedCollection(DistributedCollection):
    """Tables whose rows are updated within the backward pass: none is a parameter of the model.

    Their `local_shards` have the state of the optimizer, too.
    """

    optimizer: Fused
    """What updates them"""

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next backward pass."""
        raise NotImplementedError

    def step(self) -> None:
        """Do what the backward pass has left to do."""
        raise NotImplementedError

    def load_state(self, number: int, key: str, values: Tensor) -> None:
        """Overwrite a named state of the shard of that number in `local_shards`, from 0."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return nothing: no optimizer sees these tables; see `Collection`."""
        return []
