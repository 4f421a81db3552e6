"""The process groups of a run, from the first hello of its processes until they part."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from dlrm.errors import ConfigError, WorldError, unknown
from dlrm.parallel.failure import is_connection_error, reason
from dlrm.parallel.heartbeat import Heartbeat
from dlrm.parallel.launch_env import LaunchEnv
from dlrm.parallel.meeting import Member, meet, open_store
from dlrm.parallel.sockets import connections, interface_to, shut

BACKENDS = ("auto", "gloo", "nccl", "mpi")
CPU = torch.device("cpu")


class ProcessGroups:
    """The run's store, its process groups, and the signs of life of its ranks.

    What `choose_backend` returned is the backend; all else is as for `World.from_environment`.
    """

    members: list[Member]
    """All processes, by rank"""
    group: dist.ProcessGroup | None = None
    """The group for gradients and metrics"""
    exchange: dist.ProcessGroup | None = None
    """A second group of all processes, for the exchanges of embeddings"""

    def __init__(
        self, env: LaunchEnv, backend: str, *, start_s: float, timeout_s: float, patience_s: float
    ):
        self.backend = backend
        self._sockets: dict[int, str] = {}
        self._over = False
        store, self.members = meet(open_store(env, start_s), env, backend, start_s)
        self._heartbeat = Heartbeat(
            store,
            self.members,
            env.rank,
            keeper="the launcher" if env.launcher_hosts else str(self.members[0]),
            keeps=env.hosts_store,
            cut=self._cut,
            patience_s=patience_s,
        )
        try:
            self._connect(store, env, timedelta(seconds=timeout_s))
        except RuntimeError as error:
            if is_connection_error(error):
                explained = self.explain(reason(error))
                self.part()
                raise explained from error
            self.stop(f"{type(error).__name__}: {error}")
            self.part()
            raise

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

    def _connect(self, store: Store, env: LaunchEnv, timeout: timedelta) -> None:
        # Numbers on the CPU, such as metrics, go through gloo on GPU machines too.
        backend = "cpu:gloo,cuda:nccl" if self.backend == "nccl" else self.backend
        if self.backend == "nccl":
            torch.cuda.set_device(env.local_rank)
        if interface := interface_to(env.address, env.port):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        place = {"store": store, "rank": env.rank, "world_size": env.size}
        before = connections(env.port)
        dist.init_process_group(backend, timeout=timeout, **({} if backend == "mpi" else place))
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

    Raises:
        ConfigError: The backend is unknown, or cannot be used by a process on this device.

    """
    if backend not in BACKENDS:
        raise unknown("backend", backend, BACKENDS)
    if backend == "auto":
        backend = "nccl" if device.type == "cuda" else "gloo"
    if not dist.is_backend_available(backend):
        raise ConfigError(
            f"backend {backend} is not in this build of torch ({torch.__version__}); gloo works "
            "on CPUs"
        )
    if (backend == "nccl") != (device.type == "cuda"):
        carries, instead = (
            ("GPUs", "device cuda, or gloo, which works on CPUs")
            if backend == "nccl"
            else ("CPUs", "nccl, or device cpu")
        )
        raise ConfigError(
            f"backend {backend} carries what is on {carries}, and this run computes on {device}: "
            f"choose {instead}"
        )
    if backend == "nccl" and (gpus := torch.cuda.device_count()) < env.local_size:
        raise ConfigError(
            f"backend nccl needs a GPU for each process: {env.local_size} processes and {gpus} "
            "GPUs on this host; start fewer, or take gloo, which works on CPUs"
        )
    return backend
