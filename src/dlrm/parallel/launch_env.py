"""Where a process stands in its run, as launchers say it in environment variables.

RANK, WORLD_SIZE              number of this process, and of processes
LOCAL_RANK, LOCAL_WORLD_SIZE  the same on this host
MASTER_ADDR, MASTER_PORT      where the processes find each other: rank 0 listens there, or, with
                              TORCHELASTIC_USE_AGENT_STORE, the launcher does
DLRM_LISTENER                 in rank 0: descriptor of a socket that listens there already
"""

import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from dlrm.errors import ConfigError

HOW = "start it as: torchrun --nproc-per-node N -m dlrm ... (or dlrm train --procs N ...)"


@dataclass(frozen=True, slots=True)
class LaunchEnv:
    """One process of a run."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    hosts_store: bool
    """Whether the others find each other through this process."""
    launcher_hosts: bool
    """Whether they do so through the launcher."""
    listener: int | None = None
    """Descriptor of the socket that this process listens on; None to open one."""

    @classmethod
    def read(cls, variables: Mapping[str, str] = os.environ) -> "LaunchEnv | None":
        """Return what a launcher says; None where there is none.

        Raises:
            ConfigError: A variable is missing or has no meaning.

        """
        if "RANK" not in variables and "WORLD_SIZE" not in variables:
            return None
        size = _whole(variables, "WORLD_SIZE", low=1)
        rank = _whole(variables, "RANK", high=size - 1)
        local_size = _whole(variables, "LOCAL_WORLD_SIZE", low=1, high=size, default=size)
        launcher_hosts = variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        if not (address := variables.get("MASTER_ADDR")):
            raise ConfigError(f"RANK is set and MASTER_ADDR is not; {HOW}")
        return cls(
            rank=rank,
            size=size,
            local_rank=_whole(variables, "LOCAL_RANK", high=local_size - 1, default=rank),
            local_size=local_size,
            address=address,
            port=_whole(variables, "MASTER_PORT", low=1, high=65535),
            hosts_store=rank == 0 and not launcher_hosts,
            launcher_hosts=launcher_hosts,
            listener=int(variables["DLRM_LISTENER"]) if "DLRM_LISTENER" in variables else None,
        )


def _whole(
    variables: Mapping[str, str],
    name: str,
    *,
    low: int = 0,
    high: int | None = None,
    default: int | None = None,
) -> int:
    if (text := variables.get(name)) is None:
        if default is not None:
            return default
        other = "WORLD_SIZE" if name == "RANK" else "RANK"
        raise ConfigError(f"{other} is set and {name} is not; {HOW}")
    expected = f"{low} or more" if high is None else f"{low} to {high}"
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if value < low or (high is not None and value > high):
        raise ConfigError(f'{name} is "{text}", expected a whole number, {expected}; {HOW}')
    return value


def interface_to(address: str, port: int) -> str | None:
    """Return the network interface whose address this host uses towards another.

    Left alone, gloo takes what the host's own name resolves to, which other hosts often cannot
    reach.

    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
            # Connecting a datagram socket sends nothing; it chooses the route.
            towards.connect((address, port))
            own = towards.getsockname()[0]
            for _, name in socket.if_nameindex():
                request = struct.pack("256s", name.encode())
                try:
                    answer = fcntl.ioctl(towards.fileno(), 0x8915, request)  # SIOCGIFADDR
                except OSError:
                    continue  # an interface without an address
                if socket.inet_ntoa(answer[20:24]) == own:
                    return name
    except OSError:
        pass
    return None
