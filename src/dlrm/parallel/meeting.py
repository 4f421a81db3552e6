"""How the processes of a run find each other, and what they say when they do not.

All of them talk to one store, at MASTER_ADDR:MASTER_PORT, where each says who it is and waits until
all have. A launcher that restarts a run may keep the store: each attempt has keys of its own.
"""

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.distributed_c10d import PrefixStore, Store

from dlrm.errors import ConfigError, WorldError
from dlrm.parallel.failure import reason, within
from dlrm.parallel.launch_env import LaunchEnv

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Member:
    """One process of a run, as it introduces itself."""

    rank: int
    host: str
    process: int
    size: int
    backend: str

    def __str__(self) -> str:
        return f"rank {self.rank} (host {self.host}, process {self.process})"


def open_store(env: LaunchEnv, timeout_s: float) -> TCPStore:
    """Return the run's store.

    Raises:
        WorldError: It cannot be reached, or another program has its port.

    """
    where = f"MASTER_ADDR {env.address}, MASTER_PORT {env.port}"
    try:
        socket.getaddrinfo(env.address, env.port)
        return within(
            timeout_s + 1,
            lambda: TCPStore(
                env.address,
                env.port,
                None,
                is_master=env.hosts_store,
                timeout=timedelta(seconds=timeout_s),
                wait_for_workers=False,
                master_listen_fd=env.listener,
            ),
        )
    except socket.gaierror as error:
        raise WorldError(
            f'MASTER_ADDR "{env.address}" is no host that this one knows: {error.strerror}'
        ) from error
    except (TimeoutError, RuntimeError) as error:
        if "EADDRINUSE" in str(error):
            raise WorldError(
                f"port {env.port} is taken by another program on this host; give all processes "
                "another MASTER_PORT (torchrun --master-port)"
            ) from error
        with suppress(OSError), socket.create_connection((env.address, env.port), timeout=1):
            raise WorldError(
                f"what listens at {where} is no process of this run; give all of them another "
                "MASTER_PORT that is free there"
            ) from error
        who = "the launcher" if env.launcher_hosts else "rank 0"
        raise WorldError(
            f"{who} cannot be reached at {where} within {timeout_s:g} s ({reason(error)}); is it "
            "running, and is that its address?"
        ) from error


def meet(
    store: Store, env: LaunchEnv, backend: str, timeout_s: float
) -> tuple[Store, list[Member]]:
    """Wait until all processes of the run are there.

    Returns:
        The store with the keys of this attempt alone, and the processes by rank.

    Raises:
        WorldError: Some did not come; it names them.
        ConfigError: They were not started alike.

    """
    store = PrefixStore(f"attempt {env.attempt}", store)
    member = Member(env.rank, socket.gethostname(), os.getpid(), env.size, backend)
    try:
        return store, within(timeout_s + 5, lambda: _meet(store, member, timeout_s))
    except TimeoutError as error:
        raise WorldError(
            f"the store at {env.address}:{env.port} no longer answers ({error})"
        ) from error
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        raise WorldError(
            f"the connection to {env.address}:{env.port} broke before all processes were "
            f"there: {reason(error)}"
        ) from error


def _meet(store: Store, member: Member, timeout_s: float) -> list[Member]:
    end = time.monotonic() + timeout_s
    keys = [f"member/{rank}" for rank in range(member.size)]
    if store.add(f"taken/{member.rank}", 1) > 1:
        there = store.get(keys[member.rank]).decode()
        raise ConfigError(
            f"{Member(**json.loads(there))} says that it is rank {member.rank} too; give each "
            "process its own RANK"
        )
    # What `Heartbeat` writes later: asking for what is not there would wait.
    store.set(f"beat/{member.rank}", "0")
    store.set(f"state/{member.rank}", "{}")
    store.set(keys[member.rank], json.dumps(asdict(member)))
    while True:
        there = [rank for rank, key in enumerate(keys) if store.check([key])]
        members = [Member(**json.loads(store.get(keys[rank]))) for rank in there]
        _check_alike(members)
        if len(members) == member.size:
            return members
        if time.monotonic() >= end:
            missing = sorted(set(range(member.size)) - set(there))
            who = f"rank{'s' * (len(missing) > 1)} {', '.join(map(str, missing))}"
            raise WorldError(
                f"{who} of {member.size} did not come within {timeout_s:g} s; were all hosts "
                "started, with the same WORLD_SIZE?"
            )
        time.sleep(_POLL_S)


def _check_alike(members: list[Member]) -> None:
    for member in members:
        for name, variable in (("size", "WORLD_SIZE"), ("backend", "the backend")):
            first, other = getattr(members[0], name), getattr(member, name)
            if first != other:
                raise ConfigError(
                    f"{variable} is {first} on {members[0]} and {other} on {member}; it must be one"
                )
