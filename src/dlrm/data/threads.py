"""Work in threads whose results come in order: Polars, numpy and the kernels run side by side."""

import os
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

CORES = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4, 8)
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
