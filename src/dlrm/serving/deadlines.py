"""When the time of requests is up: all have as much of it, so that one timer watches the oldest."""

import asyncio
from typing import Any


class Deadlines:
    """The tasks of a server's event loop that answer requests.

    Args:
        timeout_s: Seconds that each may take.

    """

    def __init__(self, timeout_s: float):
        self._timeout_s = timeout_s
        self._until: dict[asyncio.Task[Any], float] = {}
        """Of each task, on the clock of the loop; ascending."""
        self._late: set[asyncio.Task[Any]] = set()
        self._watched = False

    def begin(self) -> asyncio.Task[Any]:
        """Return the task that runs, which is cancelled when its time is up."""
        task = asyncio.current_task()
        assert task is not None
        loop = task.get_loop()
        self._until[task] = until = loop.time() + self._timeout_s
        if not self._watched:
            self._watched = True
            loop.call_at(until, self._watch, loop)
        return task

    def end(self, task: asyncio.Task[Any]) -> bool:
        """Let a task take all the time that it wants; return whether it was cancelled before."""
        if self._until.pop(task, None) is not None or task not in self._late:
            return False
        self._late.remove(task)
        task.uncancel()
        return True

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel whose time is up, and come again when that of the next one is."""
        now = loop.time()
        late = []
        for task, until in self._until.items():
            if until > now:
                break
            late.append(task)
        for task in late:
            del self._until[task]
            self._late.add(task)
            task.cancel()
        self._watched = bool(self._until)
        if self._watched:
            loop.call_at(next(iter(self._until.values())), self._watch, loop)
