"""Work in threads whose results come in order, and what is left of threads in a child of fork().

Such a child has the thread pools of its parent without their threads: whatever hands work to one
waits for ever. OpenMP's is left alone where torch computes on one thread, so a child does that.
Polars' has no such switch: where the parent has started it, all that needs it raises a ForkError.
What is imported before gunicorn or multiprocessing forks is the usual way here.
"""

import os
import re
import sys
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from dlrm import cores
from dlrm.errors import ForkError

CORES = min(cores.count(), 8)
"""Results at work at once; more would cost memory and the log comes from one file."""

S = TypeVar("S")
T = TypeVar("T")


def ahead(items: Generator[T, None, None]) -> Generator[T, None, None]:
    """Yield the same items, computing the next one in a thread while this one is used."""
    done = object()
    with closing(items), ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, items, done)
        while (item := upcoming.result()) is not done:
            upcoming = thread.submit(next, items, done)
            yield item  # pyright: ignore[reportReturnType]


def in_order(
    function: Callable[[S], T], items: Generator[S, None, None], threads: int = CORES
) -> Generator[T, None, None]:
    """Yield function(item) for each item, in order, computing some of the next ones in threads.

    Memory holds the results of `threads` items beside the one that is used.
    """
    at_work: deque[Future[T]] = deque()
    with closing(items), ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                at_work.append(pool.submit(function, item))
                if len(at_work) > threads:
                    yield at_work.popleft().result()
            while at_work:
                yield at_work.popleft().result()
        finally:
            for future in at_work:
                future.cancel()


class Once(Generic[T]):
    """A value that the first thread to ask for it computes; copies and pickles are empty again."""

    __slots__ = ("_lock", "_value")

    def __init__(self) -> None:
        self._lock, self._value = Lock(), []

    def get(self, make: Callable[[], T]) -> T:
        """Return the value, `make()` of the first call; threads that ask meanwhile wait."""
        if not self._value:
            with self._lock:
                if not self._value:
                    self._value.append(make())
        return self._value[0]

    def __reduce__(self) -> tuple[type["Once[T]"], tuple[()]]:
        return Once, ()


_TASKS = Path("/proc/self/task")
_pool = {"started": False, "lost": False}
"""Whether Polars' threads were at work before a fork, and whether this process lacks them."""


def pool_lost() -> bool:
    """Whether this process was forked from one whose Polars pool was at work."""
    return _pool["lost"]


def check_pool() -> None:
    """Raise a ForkError where Polars would wait for ever."""
    if pool_lost():
        raise ForkError(
            "this process was forked from one that used Polars, whose threads it lacks: start it "
            'by spawn, e.g. multiprocessing.get_context("spawn"), or fork before dlrm is used, '
            "e.g. gunicorn without --preload; numbers and texts can be scored nevertheless, if the "
            "model was opened before the fork"
        )


def _before() -> None:
    _pool["started"] = _pool["lost"] or _pool_started()


def _in_child() -> None:
    _pool["lost"] = _pool["started"]
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


def _pool_started() -> bool:
    """Whether Polars has started its threads, which are called polars-0, polars-1, ..."""
    if not _TASKS.is_dir():
        return "polars" in sys.modules
    names = []
    for task in _TASKS.iterdir():
        # A thread may end meanwhile.
        with suppress(OSError):
            names.append((task / "comm").read_text().strip())
    return any(re.fullmatch(r"polars-\d+", name) for name in names)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_in_child)
