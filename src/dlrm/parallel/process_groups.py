"""The process groups of a run, from the first hello of its processes until they part."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from dlrm.errors import ConfigError, WorldError, unknown
from dlrm.parallel.failure import is_connection_error, reason
from dlrm.parallel.heartbeat import Heartbeat
from dlrm.parallel.launch_env import LaunchEnv, interface_to
from dlrm.parallel.meeting import Member, meet, open_store
from dlrm.parallel.sockets import connections, shut

BACKENDS = ("auto", "gloo", "nccl", "mpi")
CPU = torch.device("cpu")


class ProcessGroups:
    """The run's store, its process groups, and the signs of life of its ranks."""

    def __init__(
        self, store: Store, members: list[Member], env: LaunchEnv, backend: str, patience_s: float
    ):
        self.members, self.backend = members, backend
        self.group: dist.ProcessGroup | None = None
        self.exchange: dist.ProcessGroup | None = None
        # The server in it ends with the last that holds it; the groups go before the heartbeat.
        self._store: Store | None = store
        self._sockets: dict[int, str] = {}
        self._over = False
        self._heartbeat = Heartbeat(
            store.clone(),  # pyright: ignore[reportAttributeAccessIssue]
            members,
            env.rank,
            keeper="the launcher" if env.launcher_hosts else str(members[0]),
            keeps=env.hosts_store,
            cut=self._cut,
            patience_s=patience_s,
        )

    @classmethod
    def make(
        cls, env: LaunchEnv, backend: str, *, start_s: float, timeout_s: float, patience_s: float
    ) -> "ProcessGroups":
        """Meet the others and connect to them.

        Raises:
            WorldError: Some did not come, or are out of reach.
            ConfigError: They were not started alike.

        """
        store = open_store(env, start_s)
        members = meet(store, env, backend, start_s)
        groups = cls(store, members, env, backend, patience_s)
        try:
            groups._connect(env, timedelta(seconds=timeout_s))
        except RuntimeError as error:
            if is_connection_error(error):
                explained = groups.explain(reason(error))
                groups.part()
                raise explained from error
            groups.stop(f"{type(error).__name__}: {error}")
            groups.part()
            raise
        return groups

    def explain(self, reason: str) -> WorldError:
        """Return the error of a broken connection, which names who is gone."""
        self._over = True
        return self._heartbeat.explain(reason)

    def stop(self, message: str) -> None:
        """Tell the others why this process ends, unless it ends because of them."""
        if not self._over:
            self._heartbeat.stopped(message)
        self._over = True

    def part(self) -> None:
        """Leave the groups, and the store when the others need it no longer."""
        if self._over:
            self._cut()
        self.group = self.exchange = None
        if dist.is_initialized():
            dist.destroy_process_group()
        self._heartbeat.part()
        self._store = None

    def _connect(self, env: LaunchEnv, timeout: timedelta) -> None:
        # Numbers on the CPU, such as metrics, go through gloo on GPU machines too.
        backend = "cpu:gloo,cuda:nccl" if self.backend == "nccl" else self.backend
        if self.backend == "nccl":
            torch.cuda.set_device(env.local_rank)
        before = connections(env.port)
        with _variable("GLOO_SOCKET_IFNAME", interface_to(env.address, env.port)):
            if backend == "mpi":
                dist.init_process_group(backend, timeout=timeout)
            else:
                # A launcher that restarts the run keeps the store, and what stands in it.
                assert self._store is not None
                store = PrefixStore(self.members[0].key, self._store)
                dist.init_process_group(
                    backend, store=store, rank=env.rank, world_size=env.size, timeout=timeout
                )
            exchange = dist.new_group(timeout=timeout)
        assert isinstance(exchange, dist.ProcessGroup)
        self.group, self.exchange = dist.group.WORLD, exchange
        after = connections(env.port)
        self._sockets = {line: name for line, name in after.items() if before.get(line) != name}

    def _cut(self) -> None:
        """Wake whatever waits for another rank; nothing can be exchanged any more."""
        shut(self._sockets)
        if self.backend == "nccl":
            for group in (self.group, self.exchange):
                if group is not None:
                    group.abort()


def choose_backend(backend: str, env: LaunchEnv, device: torch.device = CPU) -> str:
    """Return the backend to use; `auto` is nccl where processes compute on GPUs, else gloo.

    Args:
        backend: One of `BACKENDS`.
        env: Of this process.
        device: Where it computes.

    Raises:
        ConfigError: The backend is unknown, or cannot be used here.

    """
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    built = {
        "gloo": dist.is_gloo_available(),
        "nccl": dist.is_nccl_available(),
        "mpi": dist.is_mpi_available(),
    }
    if backend == "auto":
        backend = "nccl" if device.type == "cuda" else "gloo"
    if not built[backend]:
        raise ConfigError(
            f"backend {backend} is not in this build of torch ({torch.__version__}); gloo works "
            "on CPUs"
        )
    if device.type == "cuda" and backend != "nccl" and env.size > 1:
        raise ConfigError(
            f"backend {backend} carries what is on CPUs, and this run computes on {device}: choose "
            "nccl, or device cpu"
        )
    if backend == "nccl" and device.type != "cuda":
        raise ConfigError(
            f"backend nccl carries what is on GPUs, and this run computes on {device.type}: choose "
            "device cuda, or gloo, which works on CPUs"
        )
    if backend == "nccl" and (gpus := torch.cuda.device_count()) < env.local_size:
        raise ConfigError(
            f"backend nccl needs a GPU for each process: {env.local_size} processes and {gpus} "
            "GPUs on this host; start fewer, or take gloo, which works on CPUs"
        )
    return backend


@contextmanager
def _variable(name: str, value: str | None) -> Iterator[None]:
    """Set an environment variable within, unless the user has."""
    if value is None or name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
