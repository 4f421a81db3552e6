"""Ranks as threads, over a store in memory."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.distributed_c10d import Store

from dlrm.errors import ConfigError, DlrmError, WorldError
from dlrm.parallel.heartbeat import Heartbeat
from dlrm.parallel.launch_env import LaunchEnv
from dlrm.parallel.meeting import Member, meet

T = TypeVar("T")


def together(size: int, function: Callable[[int], T]) -> list[T | DlrmError]:
    """Return what function(rank) returned, or raised, on threads of their own."""

    def call(rank: int) -> T | DlrmError:
        try:
            return function(rank)
        except DlrmError as error:
            return error

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(call, range(size)))


def come(
    store: Store,
    rank: int,
    size: int,
    *,
    backend: str = "gloo",
    timeout_s: float = 30,
    attempt: int = 0,
) -> Any:
    env = LaunchEnv(rank, size, rank, size, "x", 1, attempt=attempt)
    return meet(store, env, backend, timeout_s)[1]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_all_meet(size: int):
    store = HashStore()
    rolls = together(size, lambda rank: come(store, rank, size))
    assert [member.rank for member in rolls[0]] == list(range(size))  # pyright: ignore
    assert all(roll == rolls[0] for roll in rolls)


def test_a_restarted_run_does_not_meet_the_dead():
    store = HashStore()
    together(3, lambda rank: come(store, rank, 3))
    # The store of a launcher still holds all of that; one rank is missing.
    second = together(2, lambda rank: come(store, rank, 3, attempt=1, timeout_s=0.1))
    assert all("rank 2 of 3 did not come" in str(error) for error in second)


def test_ranks_that_do_not_come_are_named():
    store = HashStore()
    errors = together(2, lambda rank: come(store, rank, 4, timeout_s=0.3))
    for error in errors:
        assert isinstance(error, WorldError)
        assert "ranks 2, 3 of 4 did not come within 0.3 s" in str(error)


def test_ranks_that_differ_are_named():
    store = HashStore()
    for error in together(2, lambda rank: come(store, rank, 2, backend=("gloo", "nccl")[rank])):
        assert isinstance(error, ConfigError)
        assert "the backend is gloo on rank 0" in str(error)
        assert "and nccl on rank 1" in str(error)


def test_two_with_one_rank():
    store = HashStore()

    def both(number: int) -> Any:
        return come(store, 1, 3, timeout_s=1)

    errors = [error for error in together(2, both) if isinstance(error, ConfigError)]
    assert len(errors) == 1
    assert "says that it is rank 1 too" in str(errors[0])


def watch(size: int, patience_s: float = 1.0) -> tuple[list[Heartbeat], list[threading.Event]]:
    store = HashStore()
    members = [Member(rank, f"h{rank}", 100 + rank, size, "gloo") for rank in range(size)]
    for member in members:
        store.set(f"state/{member.rank}", "{}")
        store.set(f"beat/{member.rank}", "0")
    cuts = [threading.Event() for _ in members]
    return [
        Heartbeat(
            store, members, rank, keeper="rank 0", keeps=rank == 0, cut=cuts[rank].set,
            patience_s=patience_s,
        )
        for rank in range(size)
    ], cuts  # fmt: skip


def die(heartbeat: Heartbeat) -> None:
    """End its thread, as SIGKILL would: without a word."""
    heartbeat._parting.set()
    heartbeat._thread.join()


def part(heartbeats: list[Heartbeat]) -> None:
    together(len(heartbeats), lambda rank: heartbeats[rank].part())
    assert not any(heartbeat._thread.is_alive() for heartbeat in heartbeats)


def test_who_gives_no_sign_of_life_is_gone():
    heartbeats, cuts = watch(4)
    die(heartbeats[2])
    living = [heartbeats[rank] for rank in (0, 1, 3)]
    for error in together(3, lambda i: living[i].explain("Connection closed by peer")):
        assert str(error) == (
            "rank 2 (host h2, process 102) no longer answers: Connection closed by peer; what was "
            "saved stays: go on with --resume"
        )
    part(living)
    # They no longer wait for each other either.
    assert [cut.is_set() for cut in cuts] == [True, True, False, True]


def test_who_stopped_says_why():
    heartbeats, cuts = watch(3)
    heartbeats[1].stopped("C3: id 7 is out of range")
    assert cuts[0].wait(30)
    errors = together(3, lambda rank: heartbeats[rank].explain("x") if rank != 1 else None)
    for rank in (0, 2):
        assert "rank 1 (host h1, process 101) stopped: C3: id 7 is out" in str(errors[rank])
    part(heartbeats)


def test_who_is_alive_is_not_gone():
    heartbeats, _ = watch(2)
    assert "rank 1 (host h1, process 101) did not come" in str(heartbeats[0].explain("timed out"))
    assert "though all are there" in str(heartbeats[1].explain("timed out"))
    part(heartbeats)


def test_who_ended_before_the_others():
    heartbeats, _ = watch(2)
    heartbeats[1].part()
    assert "rank 1 (host h1, process 101) ended while others go on" in str(
        heartbeats[0].explain("x")
    )
    part(heartbeats[:1])


class Broken:
    """A store that is cut off, or whose host hangs."""

    def __init__(self, store: Store, hangs: bool):
        self.store, self.hangs = store, hangs
        self.cut, self.end = threading.Event(), threading.Event()

    def __getattr__(self, name: str) -> Any:
        if self.cut.is_set():
            if not self.hangs:
                raise RuntimeError("Broken pipe")
            self.end.wait(60)
        return getattr(self.store, name)


@pytest.mark.parametrize("hangs", [False, True])
def test_the_keeper_of_the_store_is_gone(hangs: bool):
    heartbeats, _ = watch(2, patience_s=0.3)
    broken: Any = Broken(heartbeats[1]._store, hangs)
    heartbeats[1]._store = heartbeats[1]._beats = broken
    broken.cut.set()
    assert "rank 0 no longer answers: Broken pipe" in str(heartbeats[1].explain("Broken pipe"))
    heartbeats[1].part()
    broken.end.set()
    heartbeats[1]._thread.join()
    die(heartbeats[0])


def test_states_are_json():
    heartbeats, _ = watch(1)
    heartbeats[0].stopped('a "reason"\n')
    assert json.loads(heartbeats[0]._store.get("state/0"))["reason"] == 'a "reason"\n'
    part(heartbeats)
