"""Which processes of a run are still there, so that an error names those that are not.

A connection that breaks tells nothing of its own: the process behind it may have been killed, or it
left because it found another one gone. So every rank counts in the run's store twice a second, from
a thread, and writes there how it ended when it did. Whoever meets a broken connection looks there:
the rank that stopped said why, and the one that is gone counts no longer.
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar

from torch.distributed.distributed_c10d import Store

from dlrm.errors import WorldError
from dlrm.parallel.failure import within
from dlrm.parallel.meeting import Member

T = TypeVar("T")

BEAT_S = 0.5
LOOK_S = 0.05
PATIENCE_S = 5.0
AGAIN = "what was saved stays: go on with --resume"


@dataclass
class State:
    """State of a rank, as it tells the others through the store."""

    end: Literal["", "cut", "stopped", "done"] = ""
    """`cut`: it lost another rank; `stopped`: it ended of its own accord, by an error."""
    reason: str = ""
    parted: bool = False
    """Whether it needs the store no longer."""
    beat: int = 0


class Heartbeat:
    """The signs of life of all ranks.

    Args:
        store: The run's, with the keys of this attempt.
        members: Processes of the run, by rank.
        rank: Number of this process.
        keeper: Who is gone when the store is, e.g. rank 0.
        keeps: Whether the store lives in this process.
        cut: Breaks this process's connections to the others, so that it waits for them no longer.
            Called, from another thread, when the run is over for one of them.
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
        # A client blocks while it waits: the thread has one of its own.
        self._store, self._beats = store, store.clone()  # pyright: ignore[reportAttributeAccessIssue]
        self._own = State()
        self._others = [member.rank for member in members if member.rank != rank]
        self._gone: set[int] = set()
        self._lost = False
        self._parting = threading.Event()
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
        first = now = self._look()
        end = time.monotonic() + self.patience_s
        while now is not None and first is not None:
            for rank in self._others:
                if now[rank].end == "stopped":
                    cause = now[rank].reason
                    return WorldError(f"{self.members[rank]} stopped: {cause}; {AGAIN}")
            quiet = [r for r in self._others if not now[r].end and now[r].beat == first[r].beat]
            if not quiet or time.monotonic() >= end:
                self._gone.update(quiet)
                return WorldError(self._name(quiet, now, reason))
            time.sleep(LOOK_S)
            now = self._look()
        return WorldError(f"{self.keeper} no longer answers: {reason}; {AGAIN}")

    def part(self) -> None:
        """Give no more signs of life; where the store lives here, first let the others read it."""
        if self._parting.is_set():
            return
        self._own.end, self._own.parted = self._own.end or "done", True
        self._write()
        end = time.monotonic() + 2 * self.patience_s
        while self.keeps and time.monotonic() < end and (beats := self._look()) is not None:
            if all(beats[rank].parted for rank in self._others if rank not in self._gone):
                break
            time.sleep(LOOK_S)
        self._parting.set()
        # Where the store hangs the thread does too, and ends with the process.
        self._thread.join(0 if self._lost else self.patience_s)

    def _name(self, quiet: list[int], now: list[State], reason: str) -> str:
        def who(ranks: list[int]) -> str:
            return ", ".join(str(self.members[rank]) for rank in ranks)

        if quiet:
            answer = "answers" if len(quiet) == 1 else "answer"
            return f"{who(quiet)} no longer {answer}: {reason}; {AGAIN}"
        if done := [rank for rank in self._others if now[rank].end == "done"]:
            return f"{who(done)} ended while others go on: {reason}; {AGAIN}"
        if busy := [rank for rank in self._others if not now[rank].end]:
            return (
                f"{who(busy)} did not come to where the others wait: {reason}; {AGAIN}, with a "
                "longer timeout if it was at work"
            )
        return f"the connection between the ranks broke, though all are there: {reason}; {AGAIN}"

    def _end(self, end: Literal["cut", "stopped"], reason: str) -> None:
        if not self._own.end:
            self._own.end, self._own.reason = end, reason
            self._write()
            # Where one rank ended, the others may wait for one that waits for it.
            self._ask(lambda: self._store.set("over", "1"))

    def _write(self) -> None:
        self._ask(lambda: self._store.set(f"state/{self.rank}", json.dumps(asdict(self._own))))

    def _look(self) -> list[State] | None:
        """Return the states of all ranks; None when the store does not answer."""
        ranks = range(len(self.members))
        keys = [f"{kind}/{rank}" for kind in ("state", "beat") for rank in ranks]
        if (read := self._ask(lambda: self._store.multi_get(keys))) is None:
            return None
        return [
            State(**json.loads(state) | {"beat": int(beat)})
            for state, beat in zip(read[: len(ranks)], read[len(ranks) :], strict=True)
        ]

    def _ask(self, function: Callable[[], T]) -> T | None:
        """Return what the store answers; None when it does not, and is never asked again."""
        if not self._lost:
            with suppress(RuntimeError, TimeoutError):
                return within(self.patience_s, function)
            self._lost = True
        return None

    def _beat(self) -> None:
        over = False
        # Without the store nobody looks; whoever asks it next finds out.
        with suppress(RuntimeError):
            while not self._parting.is_set():
                self._beats.add(f"beat/{self.rank}", 1)
                if not over and self._beats.check(["over"]):
                    over = True
                    self._cut()
                self._parting.wait(BEAT_S)
