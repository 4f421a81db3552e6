"""Which processes of a run are still there, so that an error names those that are not.

A connection that breaks tells nothing of its own: the process behind it may have been killed, or it
left because it found another one gone. So every rank writes its state into the run's store twice a
second, from a thread: a count that grows, and how it ended when it did. Whoever meets a broken
connection looks there: the rank that stopped said why, and the one that is gone counts no longer.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Literal

from torch.distributed.distributed_c10d import Store

from dlrm.errors import WorldError
from dlrm.parallel.meeting import Member

BEAT_S = 0.5
LOOK_S = 0.05
PATIENCE_S = 5.0
AGAIN = "what was saved stays: go on with --resume"


@dataclass
class State:
    """What a rank says of itself."""

    beat: int = 0
    end: Literal["", "cut", "stopped", "done"] = ""
    """`cut`: it lost another rank; `stopped`: it ended of its own accord, by an error."""
    reason: str = ""
    parted: bool = False
    """Whether it needs the store no longer."""


class Heartbeat:
    """The signs of life of all ranks.

    Args:
        store: A client of the run's store that nothing else uses.
        members: Of the run, by rank.
        rank: Of this process.
        keeper: Who is gone when the store is, e.g. rank 0.
        keeps: Whether the store lives in this process.
        cut: Breaks this process's connections to the other ranks, so that it waits for them no
            longer. Called, from another thread, when the run is over for one of them.
        patience_s: After which a rank that gives no sign of life is gone.

    """

    def __init__(
        self,
        store: Store,
        members: list[Member],
        rank: int,
        *,
        keeper: str,
        keeps: bool,
        cut: Callable[[], None],
        patience_s: float = PATIENCE_S,
    ):
        self.members, self.rank, self.keeper, self.keeps = members, rank, keeper, keeps
        self.patience_s, self._cut = patience_s, cut
        self._store = store
        self._own = State()
        self._gone: set[int] = set()
        self._keys = [f"state/{member.key}" for member in members]
        self._over = f"over/{members[0].key}"
        self._others = [member.rank for member in members if member.rank != rank]
        # Held while the own state changes; told of each look at the others'.
        self._turn = threading.Condition()
        self._seen: list[State] | None = None
        self._looks = 0
        self._watching = self._parting = self._lost = self._is_over = False
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def stopped(self, reason: str) -> None:
        """Tell the others that this process ends, and why."""
        self._end("stopped", reason)

    def explain(self, reason: str) -> WorldError:
        """Return the error of a broken connection: who is gone, as far as can be seen.

        It takes up to the patience.
        """
        self._end("cut", reason)
        first = self._look()
        end = time.monotonic() + self.patience_s
        now = first
        while now is not None and first is not None:
            for rank in self._others:
                if now[rank].end == "stopped":
                    cause = now[rank].reason
                    return WorldError(f"{self.members[rank]} stopped: {cause}; {AGAIN}")
            quiet = [r for r in self._others if not now[r].end and now[r].beat == first[r].beat]
            if not quiet or time.monotonic() >= end:
                self._gone.update(quiet)
                return self._name(quiet, now, reason)
            now = self._look()
        return WorldError(f"{self.keeper} no longer answers: {reason}; {AGAIN}")

    def part(self) -> None:
        """Give no more signs of life; where the store lives here, first let the others read it."""
        if not self._thread.is_alive():
            return
        with self._turn:
            if not self._own.end:
                self._own.end = "done"
            self._own.parted = True
        end = time.monotonic() + 2 * self.patience_s
        while self.keeps and time.monotonic() < end:
            seen = self._look()
            left = set(self._others) - self._gone
            if seen is None or all(seen[rank].parted for rank in left):
                break
        if not self.keeps:
            self._look()
        with self._turn:
            self._parting = True
            self._turn.notify_all()
        # Where the store hangs the thread does too, and ends with the process.
        self._thread.join(0 if self._lost else self.patience_s)

    def _name(self, quiet: list[int], now: list[State], reason: str) -> WorldError:
        if quiet:
            who = ", ".join(str(self.members[rank]) for rank in quiet)
            answer = "answers" if len(quiet) == 1 else "answer"
            return WorldError(f"{who} no longer {answer}: {reason}; {AGAIN}")
        done = [str(self.members[rank]) for rank in self._others if now[rank].end == "done"]
        if done:
            return WorldError(f"{', '.join(done)} ended while others go on: {reason}; {AGAIN}")
        busy = [str(self.members[rank]) for rank in self._others if not now[rank].end]
        if busy:
            return WorldError(
                f"{', '.join(busy)} did not come to where the others wait: {reason}; {AGAIN}, "
                "with a longer timeout if it was at work"
            )
        return WorldError(
            f"the connection between the ranks broke, though all are there: {reason}; {AGAIN}"
        )

    def _end(self, end: Literal["cut", "stopped"], reason: str) -> None:
        with self._turn:
            if not self._own.end:
                self._own.end, self._own.reason = end, reason
        self._look()

    def _look(self) -> list[State] | None:
        """Write the own state, return those of all; None when the store does not answer."""
        with self._turn:
            self._watching = True
            if self._lost:
                return None
            before = self._looks
            self._turn.notify_all()
            fine = self._turn.wait_for(
                lambda: self._looks > before + 1 or self._lost, self.patience_s
            )
            # What takes this long is not waited for again.
            self._lost = self._lost or not fine
            return None if self._lost else self._seen

    def _beat(self) -> None:
        # Alone with the store, which may block for ever: whoever waits for this thread has a limit.
        try:
            while self._once():
                pass
        except RuntimeError:
            with self._turn:
                self._lost = True
                self._turn.notify_all()

    def _once(self) -> bool:
        """Write, look at the others where asked, and wait; return whether to go on."""
        with self._turn:
            self._own.beat += 1
            own, watching, parting = replace(self._own), self._watching, self._parting
        self._store.set(self._keys[self.rank], json.dumps(asdict(own)))
        if not self._is_over:
            if own.end in ("cut", "stopped"):
                self._store.set(self._over, "1")
            # Where one rank ended, the others may wait for one that waits for it.
            if self._store.check([self._over]):
                self._is_over = True
                self._cut()
        seen = None
        if watching:
            seen = [State(**json.loads(state)) for state in self._store.multi_get(self._keys)]
        with self._turn:
            if seen is not None:
                self._seen = seen
                self._looks += 1
                self._turn.notify_all()
            if not parting:
                self._turn.wait(LOOK_S if watching else BEAT_S)
        return not parting
