"""How the processes of a run find each other, and what they say when they do not.

All of them talk to one store, at MASTER_ADDR:MASTER_PORT. Each says hello there; rank 0 waits until
all have, and welcomes them. A launcher that restarts a run keeps the store, with the hellos of
processes that are dead by now, so each welcome is answered before it counts.
"""

import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.distributed_c10d import Store

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
    key: str
    """Of this process alone, so that nobody takes it for one that was here before."""

    def __str__(self) -> str:
        return f"rank {self.rank} (host {self.host}, process {self.process})"


def open_store(env: LaunchEnv, timeout_s: float) -> TCPStore:
    """Return the run's store.

    Raises:
        WorldError: It cannot be reached, or another program has its port.

    """
    where = f"MASTER_ADDR {env.address}, MASTER_PORT {env.port}"
    timeout = timedelta(seconds=timeout_s)
    if not env.hosts_store:
        timeout_s = _wait_for_listener(env, timeout_s)
    try:
        return within(
            timeout_s + 1,
            lambda: TCPStore(
                env.address,
                env.port,
                None,
                is_master=env.hosts_store,
                timeout=timeout,
                wait_for_workers=False,
                master_listen_fd=env.listener,
            ),
        )
    except TimeoutError as error:
        raise WorldError(
            f"what listens at {where} is no process of this run; give all of them another "
            "MASTER_PORT that is free there"
        ) from error
    except RuntimeError as error:
        if "EADDRINUSE" in str(error):
            raise WorldError(
                f"port {env.port} is taken by another program on this host; give all processes "
                "another MASTER_PORT (torchrun --master-port)"
            ) from error
        raise WorldError(f"the run's processes cannot meet at {where}: {reason(error)}") from error


def _wait_for_listener(env: LaunchEnv, timeout_s: float) -> float:
    """Wait until somebody listens at the meeting point and return the seconds left."""
    end = time.monotonic() + timeout_s
    problem: OSError | None = None
    while (left := end - time.monotonic()) > 0:
        try:
            socket.create_connection((env.address, env.port), timeout=left).close()
            return end - time.monotonic()
        except socket.gaierror as error:
            raise WorldError(
                f'MASTER_ADDR "{env.address}" is no host that this one knows: {error.strerror}'
            ) from error
        except OSError as error:
            problem = error
            time.sleep(_POLL_S)
    who = "the launcher" if env.launcher_hosts else "rank 0"
    raise WorldError(
        f"{who} cannot be reached at MASTER_ADDR {env.address}, MASTER_PORT {env.port} within "
        f"{timeout_s:g} s ({problem}); is it running, and is that its address?"
    )


def meet(store: Store, env: LaunchEnv, backend: str, timeout_s: float) -> list[Member]:
    """Wait until all processes of the run are there, and return them by rank.

    Raises:
        WorldError: Some did not come; it names them.
        ConfigError: They were not started alike.

    """
    own = Member(env.rank, socket.gethostname(), os.getpid(), env.size, backend, uuid.uuid4().hex)
    meeting = _Meeting(store, own, timeout_s)
    try:
        return within(timeout_s + 5, meeting.receive if env.rank == 0 else meeting.attend)
    except TimeoutError as error:
        raise WorldError(
            f"the store at {env.address}:{env.port} no longer answers ({error})"
        ) from error
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        raise WorldError(
            f"the connection to {env.address}:{env.port} broke before all processes were "
            f"there: {reason(error)}"
        ) from error


class _Meeting:
    def __init__(self, store: Store, own: Member, timeout_s: float):
        self.store, self.own, self.timeout_s = store, own, timeout_s
        self.end = time.monotonic() + timeout_s
        # Empty until `Heartbeat` writes it, but there: asking for a missing one would wait.
        store.set(f"state/{own.key}", "{}")
        store.set(f"hello/{own.rank}", json.dumps(asdict(own)))

    def receive(self) -> list[Member]:
        """Be rank 0: welcome the others until all who are welcomed have answered."""
        ranks = range(self.own.size)
        welcomed: list[Member | None] = []
        number = ""
        while True:
            came = [self._hello(rank) for rank in ranks]
            members = [member for member in came if member is not None]
            if len(members) == len(came) and came != welcomed:
                welcomed, number = came, uuid.uuid4().hex
                refusal = _differ(members)
                welcome = {"members": [asdict(m) for m in members], "refusal": refusal}
                self.store.set("welcome", json.dumps(welcome | {"number": number}))
                if refusal:
                    raise ConfigError(refusal)
            answered = [rank == 0 or self._read(f"answer/{rank}") == number for rank in ranks]
            if number and all(answered):
                self.store.set(f"begin/{number}", json.dumps(True))
                return members
            self._wait([r for r in ranks if came[r] is None or (number and not answered[r])])

    def attend(self) -> list[Member]:
        """Be another rank: wait for the welcome, and answer it."""
        answered = None
        while True:
            welcome = self._read("welcome")
            members = [Member(**member) for member in welcome["members"]] if welcome else []
            if self.own in members:
                if welcome["refusal"]:
                    raise ConfigError(welcome["refusal"])
                if welcome["number"] != answered:
                    answered = welcome["number"]
                    self.store.set(f"answer/{self.own.rank}", json.dumps(answered))
                if self._read(f"begin/{answered}"):
                    return members
            there = self._hello(self.own.rank)
            if there is not None and there.key != self.own.key:
                raise ConfigError(
                    f"{there} says that it is rank {self.own.rank} too; give each process "
                    "its own RANK"
                )
            self._wait([r for r in range(self.own.size) if self._hello(r) is None] or [0])

    def _wait(self, missing: list[int]) -> None:
        if time.monotonic() < self.end:
            time.sleep(_POLL_S)
            return
        who = f"ranks {', '.join(map(str, missing))}" if len(missing) > 1 else f"rank {missing[0]}"
        raise WorldError(
            f"{who} of {self.own.size} did not come within {self.timeout_s:g} s; were all hosts "
            "started, with the same WORLD_SIZE?"
        )

    def _hello(self, rank: int) -> Member | None:
        hello = self._read(f"hello/{rank}")
        return Member(**hello) if hello else None

    def _read(self, key: str) -> Any:
        return json.loads(self.store.get(key)) if self.store.check([key]) else None


def _differ(members: list[Member]) -> str | None:
    for member in members:
        for name, variable in (("size", "WORLD_SIZE"), ("backend", "the backend")):
            own, its = getattr(members[0], name), getattr(member, name)
            if own != its:
                return f"{variable} is {own} on {members[0]} and {its} on {member}; it must be one"
    return None
