"""Processes that stay, for tests of several ranks: starting new ones for each test is slow."""

import multiprocessing as mp
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from dlrm.parallel.world import ALONE, World

T = TypeVar("T")

PRELOADED = ["torch.distributed", "dlrm.models", "dlrm.optim", "pytest", "hypothesis"]
"""What tests of several ranks need; but Polars, whose threads would not outlive a fork."""

START_S = 120
GRACE_S = 3


class Ranks:
    """Up to `most` processes, started at the first call of `run`.

    Args:
        most: Processes.
        folder: Where they find each other.

    """

    def __init__(self, most: int, folder: Path):
        self.most, self.folder = most, folder
        self._starts = 0
        self._processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []

    def run(
        self,
        function: Callable[..., T],
        *args: Any,
        world: int = 2,
        timeout_s: float = 60,
    ) -> list[T]:
        """Call `function(world, *args)` in `world` processes and return the results by rank.

        Args:
            function: Of a module: the processes import it.
            args: For every rank the same; pickled, like the results.
            world: Ranks, up to `most`; a World of each size is made once and used again.
            timeout_s: After which all processes are killed.

        Raises:
            Exception: What the first rank to fail raised, with its traceback as a note.
            TimeoutError: A rank did not end; the next call starts new processes.

        """
        assert 1 <= world <= self.most
        if not self._processes:
            self._start()
        for pipe in self._pipes[:world]:
            # In two steps, since the path must be set before the function is imported.
            _send(pipe, sys.path)
            _send(pipe, (world, function, args))
        answers: dict[int, tuple[bool, Any]] = {}
        failed: int | None = None
        end = time.monotonic() + timeout_s
        while len(answers) < world:
            open_pipes = {self._pipes[r]: r for r in range(world) if r not in answers}
            ready = wait(list(open_pipes), max(0, end - time.monotonic()))
            if not ready:
                break
            for pipe in ready:
                rank = open_pipes[pipe]  # pyright: ignore[reportArgumentType]
                answers[rank] = _receive(self._pipes[rank])
                if failed is None and not answers[rank][0]:
                    failed = rank
                    # The others may wait for it: they are not left to their timeout.
                    end = min(end, time.monotonic() + GRACE_S)
        silent = [rank for rank in range(world) if rank not in answers]
        if silent or any(isinstance(answer, EOFError) for _, answer in answers.values()):
            self.close()
        if failed is not None:
            raise answers[failed][1]
        if silent:
            raise TimeoutError(f"ranks {silent} of {world} did not end within {timeout_s} s")
        return [answers[rank][1] for rank in range(world)]

    def close(self) -> None:
        """End the processes; the next `run` starts new ones."""
        for process in self._processes:
            process.kill()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join()
            pipe.close()
        self._processes, self._pipes = [], []

    def _start(self) -> None:
        # Forked from one process that imported it all: four imports would take four times as long.
        context = mp.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self._starts += 1
        store = str(self.folder / str(self._starts))
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"
        try:
            for rank in range(self.most):
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=serve, args=(rank, self.most, store, theirs), daemon=True
                )
                process.start()
                theirs.close()
                self._processes.append(process)
                self._pipes.append(ours)
        finally:
            if before is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = before
        for pipe in self._pipes:
            assert pipe.poll(START_S), "the ranks did not start"
            fine, answer = _receive(pipe)
            if not fine:
                self.close()
                raise answer


def _send(pipe: Connection, value: Any) -> None:
    # Not pipe.send, which passes tensors as files in shared memory that live as long as the sender.
    pipe.send_bytes(pickle.dumps(value))


def _receive(pipe: Connection) -> tuple[bool, Any]:
    try:
        return pickle.loads(pipe.recv_bytes())
    except (EOFError, ConnectionResetError):
        return False, EOFError("a rank's process ended")


def serve(rank: int, most: int, path: str, pipe: Connection) -> None:
    """Be one rank: take functions from the pipe, call them, send back what they return."""
    try:
        torch.set_num_threads(1)
        # As in the process of the tests: nothing here has to survive a power cut.
        os.fsync = lambda fd: None
        timeout = timedelta(seconds=60)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group(
            "gloo", init_method=f"file://{path}", rank=rank, world_size=most, timeout=timeout
        )
        worlds: dict[int, World] = {1: ALONE}
        for size in range(2, most + 1):
            members = list(range(size))
            group, exchange = (dist.new_group(members, timeout=timeout) for _ in range(2))
            # What it gives those who are no members is no group.
            if isinstance(group, dist.ProcessGroup) and isinstance(exchange, dist.ProcessGroup):
                worlds[size] = World(
                    rank,
                    size,
                    local_rank=rank,
                    local_size=size,
                    group=group,
                    exchange=exchange,
                )
    except BaseException as error:
        _send(pipe, (False, _portable(error, rank)))
        return
    _send(pipe, (True, None))
    while True:
        try:
            sys.path[:] = pickle.loads(pipe.recv_bytes())
            task = pipe.recv_bytes()
        except EOFError:
            return
        try:
            size, function, args = pickle.loads(task)
            answer = pickle.dumps((True, function(worlds[size], *args)))
        except BaseException as error:
            answer = pickle.dumps((False, _portable(error, rank)))
        pipe.send_bytes(answer)


def _portable(error: BaseException, rank: int) -> BaseException:
    """Return the error, or one that says the same, that can be sent to another process."""
    note = f"on rank {rank}:\n{traceback.format_exc()}"
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error
