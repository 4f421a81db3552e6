"""How a run uses several processes."""

from dataclasses import dataclass
from typing import Literal

from dlrm.errors import ConfigError
from dlrm.planning.placement import Sharding

Engine = Literal["dlrm", "torchrec"]
Backend = Literal["auto", "gloo", "nccl", "mpi"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelConfig:
    """How a run uses several processes: `dlrm train --procs N`, or torchrun."""

    sharding: Sharding = "auto"
    """How tables are spread: whole tables, parts of their rows or columns, copies; auto chooses for
    each."""
    device_memory: str = ""
    """Memory that a process has for tables and their optimizer state, e.g. 80GB; none for any
    size."""
    exchange_dtype: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Type in which vectors and their gradients travel; halves take half the time and lose
    digits."""
    backend: Backend = "auto"
    """What carries them: gloo between CPUs, nccl between GPUs; auto is nccl where the model is on
    GPUs."""
    timeout_s: float = 300.0
    """Seconds without an answer after which another process is taken to be gone."""

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:
            raise ConfigError(f"parallel.timeout_s is {self.timeout_s}: it must be positive")
