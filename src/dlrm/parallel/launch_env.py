"""What the launcher of this process says of it in environment variables.

RANK, WORLD_SIZE              number of this process, and of processes
LOCAL_RANK, LOCAL_WORLD_SIZE  the same on this host
MASTER_ADDR, MASTER_PORT      where the processes find each other: rank 0 listens there, or, with
                              TORCHELASTIC_USE_AGENT_STORE, the launcher does
TORCHELASTIC_RESTART_COUNT    how often torchrun has started all processes anew
DLRM_LAUNCHED                 set where another process, which started this one, prints the result
DLRM_LISTENER                 in rank 0: descriptor of a socket that listens there already
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dlrm.errors import ConfigError, RunError
from dlrm.json_file import read_json

HOW = "start it as: torchrun --nproc-per-node N -m dlrm ... (or dlrm train --procs N ...)"
BY_US = "DLRM_LAUNCHED"


@dataclass(frozen=True, slots=True)
class LaunchEnv:
    """One process of a run."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    launcher_hosts: bool = False
    """Whether the processes find each other through the launcher, instead of rank 0."""
    attempt: int = 0
    """Restarts before this one."""
    listener: int | None = None
    """Descriptor of the socket that this process listens on; None to open one."""

    @property
    def hosts_store(self) -> bool:
        """Whether the others find each other through this process."""
        return self.rank == 0 and not self.launcher_hosts

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> "LaunchEnv | None":
        """Return what a launcher says; None where there is none.

        Raises:
            ConfigError: A variable is missing or has no meaning.

        """
        if "RANK" not in variables and "WORLD_SIZE" not in variables:
            return None

        def number(name: str, low: int, high: int | None = None, default: int | None = None) -> int:
            if (text := variables.get(name)) is None:
                if default is not None:
                    return default
                other = "WORLD_SIZE" if name == "RANK" else "RANK"
                raise ConfigError(f"{other} is set and {name} is not; {HOW}")
            if text.isdecimal() and low <= int(text) and (high is None or int(text) <= high):
                return int(text)
            expected = f"{low} or more" if high is None else f"{low} to {high}"
            raise ConfigError(f'{name} is "{text}", expected a whole number, {expected}; {HOW}')

        size = number("WORLD_SIZE", 1)
        rank = number("RANK", 0, size - 1)
        local_size = number("LOCAL_WORLD_SIZE", 1, size, default=size)
        if not (address := variables.get("MASTER_ADDR")):
            raise ConfigError(f"RANK is set and MASTER_ADDR is not; {HOW}")
        return cls(
            rank,
            size,
            number("LOCAL_RANK", 0, local_size - 1, default=rank),
            local_size,
            address,
            number("MASTER_PORT", 1, 65535),
            launcher_hosts=variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
            attempt=number("TORCHELASTIC_RESTART_COUNT", 0, default=0),
            listener=int(variables["DLRM_LISTENER"]) if "DLRM_LISTENER" in variables else None,
        )


def by_us() -> bool:
    """Return whether the process that started this one prints the result."""
    return BY_US in os.environ


def launch_id() -> str | None:
    """Return what is the same for all starts that one torchrun makes, else None."""
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    # Its id may be the same for all jobs, its process not.
    return None if run_id is None else f"{run_id}/{os.getppid()}"


def restarted(run: str | None) -> Path | None:
    """Return the run directory that this process is to go on with, after torchrun's restart.

    That is `run` where the user named one. None unless torchrun has started all processes anew, and
    the run had begun.
    """
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        return None
    if run is not None:
        return Path(run) if (Path(run) / "config.json").is_file() else None
    for config in sorted(Path("runs").glob("*/config.json"), reverse=True):
        environment = read_json(config.parent / "environment.json", RunError)
        if environment.get("launch") == launch_id():
            return config.parent
    return None
