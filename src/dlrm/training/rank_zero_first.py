"""Work that one process of a run does first, such as preparing data, while the others wait."""

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from dlrm.parallel.world import World

T = TypeVar("T")

LOOK_S = 0.5


def rank_zero_first(world: World, work: Callable[[], T]) -> T:
    """Return what the work returns on this process.

    The first process does it first, then the first of every other host, then all: what they find
    done on their disk is quick. However long it takes, nobody is taken to be gone.

    Args:
        world: The processes of the run, all of which call this.
        work: Called once.

    """
    if world.size == 1:
        return work()
    turn = 0 if world.first else 1 if world.local_rank == 0 else 2
    with ThreadPoolExecutor(1, "turn") as pool:
        mine: Future[T] | None = None
        for now in range(3):
            if now == turn:
                mine = pool.submit(contextvars.copy_context().run, work)
            while True:
                busy = now == turn and mine is not None and not mine.done()
                if not any(world.all_gather_object(busy)):
                    break
                if busy and mine is not None:
                    wait([mine], LOOK_S)
            if now == turn and mine is not None:
                mine.result()
        assert mine is not None
        return mine.result()
