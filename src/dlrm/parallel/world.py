"""One process among the others of its run: who it is, and what it says to them.

W processes, the ranks 0 ... W-1, run the same program. What a World does, all of its ranks do, in
the same order. Numbers travel as tensors and anything else as JSON, so that nothing that comes from
another process is executed; `torch.distributed` sends objects as pickles.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from dlrm.errors import ConfigError, DlrmError, WorldError
from dlrm.parallel.failure import is_connection_error, reason
from dlrm.parallel.heartbeat import PATIENCE_S
from dlrm.parallel.launch_env import LaunchEnv
from dlrm.parallel.process_groups import CPU, ProcessGroups, choose_backend


class World:
    """One process among `size`; `ALONE` is one without others, in which all methods work.

    Args:
        rank: Number of this process, from 0.
        size: Number of processes, W.
        local_rank: Number of this process on its host, from 0.
        local_size: Number of processes on its host.
        group: The processes, for gradients and metrics; None when alone.
        exchange: The same processes again, for embeddings: what travels there does not wait for
            what travels in `group`.
        device: Where this process computes.
        groups: Of a world that a launcher made: what holds it together.

    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        *,
        local_rank: int = 0,
        local_size: int = 1,
        group: dist.ProcessGroup | None = None,
        exchange: dist.ProcessGroup | None = None,
        device: torch.device = CPU,
        groups: ProcessGroups | None = None,
    ):
        self.rank, self.size = rank, size
        self.local_rank, self.local_size = local_rank, local_size
        self.group, self.exchange = group, exchange
        self.device = device
        self._groups = groups

    @classmethod
    def from_environment(
        cls,
        backend: str = "auto",
        timeout_s: float = 300,
        *,
        device: Callable[[int, int], torch.device] = lambda local_rank, local_size: CPU,
        start_s: float = 300,
        patience_s: float = PATIENCE_S,
    ) -> "World":
        """Return the world that a launcher made, e.g. torchrun; one process alone without one.

        Args:
            backend: `gloo` on CPUs, `nccl` on GPUs, `mpi`; `auto` takes nccl where processes
                compute on GPUs.
            timeout_s: After which a rank that waits for another gives up.
            device: Number of a process on its host, and how many there are -> where it computes.
            start_s: After which those who are there give up waiting for the rest.
            patience_s: After which a rank without a sign of life is gone, once a connection broke.

        Raises:
            ConfigError: The environment or the backend has no meaning here, or the processes were
                not started alike.
            WorldError: Some process did not come, or the meeting point is out of reach.

        """
        if (env := LaunchEnv.read()) is None or env.size == 1:
            return cls(device=device(0, 1))
        own_device = device(env.local_rank, env.local_size)
        groups = ProcessGroups(
            env,
            choose_backend(backend, env, own_device),
            start_s=start_s,
            timeout_s=timeout_s,
            patience_s=patience_s,
        )
        return cls(
            env.rank,
            env.size,
            local_rank=env.local_rank,
            local_size=env.local_size,
            group=groups.group,
            exchange=groups.exchange,
            device=own_device,
            groups=groups,
        )

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes the run directory and speaks to the user."""
        return self.rank == 0

    def __enter__(self) -> "World":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        match error:
            case None | WorldError() | SystemExit(code=None | 0):
                self.close()
            case KeyboardInterrupt():
                self.abort("it was interrupted")
            case DlrmError():
                self.abort(str(error))
            case _:
                self.abort(f"{type(error).__name__}: {error}")

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over ranks, of equal bits on all of them.

        The tensor is of the same shape and dtype everywhere: float32, float64, int32 or int64.
        """
        total = tensor.detach().clone()
        if self.group is not None:
            with self.guard():
                dist.all_reduce(total, group=self.group)
        return total

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensor (n, ...) of every rank, by rank; n may differ, and be 0."""
        local = tensor.detach()
        if self.group is None:
            return [local.clone()]
        with self.guard():
            sizes = torch.zeros(self.size, 1, dtype=torch.int64)
            dist.all_gather(list(sizes), torch.tensor([len(local)]), group=self.group)
            rows = sizes.flatten().tolist()
            # The backends gather equal shapes only.
            padded = local.new_zeros(max(rows), *local.shape[1:])
            padded[: len(local)] = local
            parts = [torch.empty_like(padded) for _ in rows]
            dist.all_gather(parts, padded, group=self.group)
        return [part[:n] for part, n in zip(parts, rows, strict=True)]

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's value, a JSON value, on every rank; those of the others are ignored."""
        return self.all_gather_object(value if self.first else None)[0]

    def all_gather_object(self, value: Any) -> list[Any]:
        """Return the JSON value of every rank, by rank, to all of them."""
        written = bytearray(json.dumps(value).encode())
        parts = self.gather(torch.frombuffer(written, dtype=torch.uint8))
        return [json.loads(part.numpy().tobytes()) for part in parts]

    def assert_same(self, settings: dict[str, Any]) -> None:
        """Make sure that all ranks were started with the same settings, name -> JSON value.

        Raises:
            ConfigError: Two ranks differ; it names the first such key, both values and ranks.

        """
        written = {key: json.dumps(value, sort_keys=True) for key, value in settings.items()}
        answers = self.all_gather_object(written)
        for key in dict.fromkeys(key for answer in answers for key in answer):
            values = [answer.get(key, "missing") for answer in answers]
            for rank, value in enumerate(values):
                if value != values[0]:
                    raise ConfigError(
                        f"the ranks were not started alike: {key} is {_shorten(values[0])} on rank "
                        f"0 and {_shorten(value)} on rank {rank}; give every rank the same command "
                        "and the same data"
                    )

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.sum(torch.zeros(1))

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Turn a connection that breaks within into an error that names who is gone.

        Raises:
            WorldError: Another rank is gone, or did not answer in time.

        """
        try:
            yield
        except RuntimeError as error:
            if not is_connection_error(error):
                raise
            if self._groups is None:
                raise WorldError(reason(error)) from error
            raise self._groups.explain(reason(error)) from error

    def abort(self, message: str) -> None:
        """Tell the others why this process ends, which their next exchange raises, and close."""
        if self._groups is not None:
            self._groups.stop(message)
        self.close()

    def close(self) -> None:
        """Part from the others; nothing of this process stays behind."""
        if self._groups is not None:
            self.group = self.exchange = None
            self._groups.part()
            self._groups = None


ALONE = World()
"""The world of a run of one process."""


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:60]} ... {text[-16:]}"
