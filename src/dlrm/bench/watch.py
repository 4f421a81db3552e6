"""What else the machine did while something was timed.

Another program on the same cores, or the hypervisor that gives them to another guest, makes a
figure wrong without a trace in it. `/proc/stat` says what became of the CPU time of each core.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch

from dlrm.planning.facts import usable_cores

STAT = Path("/proc/stat")
PROCESSES = Path("/proc")

STOLEN_LIMIT = 0.02
OTHERS_LIMIT = 0.05
"""Shares of the CPU time above which figures are doubtful."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a watch saw."""

    threads: int
    """Threads of torch."""
    cores: int
    """Cores that this process may use."""
    load: float
    """Mean over the minute before: how many programs computed, or wanted to."""
    steal_share: float | None
    """Share of the cores' time that the hypervisor took; None where the system does not tell."""
    others_share: float | None
    """Share of the cores' time that other programs took; None where the system does not tell."""

    def to_dict(self) -> dict[str, Any]:
        """Return what belongs in a row of results, JSON-ready."""
        names = ("threads", "load", "steal_share", "others_share")
        return {name: getattr(self, name) for name in names}

    @property
    def disturbed(self) -> bool:
        """Whether something else computed, as far as the system tells."""
        stolen, others = self.steal_share or 0.0, self.others_share or 0.0
        return stolen > STOLEN_LIMIT or others > OTHERS_LIMIT

    @property
    def warning(self) -> str | None:
        """Why figures are doubtful; None where nothing was seen that disturbs."""
        doubts = []
        if self.others_share is None:
            # The load is of the minute before, which may have been our own.
            if self.load > self.cores / 2:
                doubts.append("another program may have computed meanwhile")
        elif self.others_share > OTHERS_LIMIT:
            doubts.append(
                f"another program computed meanwhile: {self.others_share:.0%} of the time"
            )
        if (self.steal_share or 0.0) > STOLEN_LIMIT:
            doubts.append(f"the hypervisor took {self.steal_share:.0%} of the time")
        if not doubts:
            return None
        cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
        return f"{'; '.join(doubts)}; load {self.load:.1f} on {cores}"


@dataclass(frozen=True, slots=True)
class _Ticks:
    """CPU time since the machine started, in seconds."""

    total: float
    stolen: float
    busy: float
    process: float
    """Seconds of this process, and of its descendants, those that ended too."""


class Watch:
    """Watches the machine while something is timed.

    with Watch() as watch:
        timings = interleave(candidates, rounds=11)
    rows = [row("train", figures | watch.seen.to_dict())]
    """

    def __enter__(self) -> Self:
        self._load = os.getloadavg()[0]
        self._before = _ticks()
        self._after: _Ticks | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._after = _ticks()

    @property
    def seen(self) -> Seen:
        """Load of the machine from the start of the block to its end, or to now while inside it."""
        stolen, others = _shares(self._before, self._after or _ticks())
        return Seen(
            threads=torch.get_num_threads(),
            cores=len(usable_cores()),
            load=self._load,
            steal_share=stolen,
            others_share=others,
        )


def _shares(before: _Ticks | None, after: _Ticks | None) -> tuple[float | None, float | None]:
    """Return the shares of CPU time that the hypervisor and other programs took."""
    if before is None or after is None or after.total <= before.total:
        return None, None
    total = after.total - before.total
    others = (after.busy - before.busy) - (after.process - before.process)
    # The system counts in hundredths of a second, our own time is exact.
    return (after.stolen - before.stolen) / total, min(max(others / total, 0.0), 1.0)


def _ticks() -> _Ticks | None:
    """Read what became of the time of our cores; None where the system does not tell."""
    cores = {f"cpu{core}" for core in usable_cores()}
    try:
        lines = [line.split() for line in STAT.read_text().splitlines()]
    except OSError:
        return None
    per_s = os.sysconf("SC_CLK_TCK")
    times = [[int(word) / per_s for word in line[1:9]] for line in lines if line[0] in cores]
    if not times or min(map(len, times)) < 8:
        return None
    user, nice, system, idle, waiting, irq, soft, stolen = map(sum, zip(*times, strict=True))
    busy = user + nice + system + irq + soft
    children = os.times()
    process = time.process_time() + children.children_user + children.children_system
    process += sum(_descendants()) / per_s
    return _Ticks(total=busy + idle + waiting + stolen, stolen=stolen, busy=busy, process=process)


def _descendants() -> Iterator[int]:
    """Yield the ticks of each process that this one, or one of these, has started and that runs.

    Those of its children that ended are among them.
    """
    known = {os.getpid()}
    ticks: dict[int, tuple[int, int]] = {}
    for file in PROCESSES.glob("[0-9]*/stat"):
        # It may have ended, or be hidden.
        with suppress(OSError):
            # The name stands in brackets, and may hold anything.
            fields = file.read_text(errors="replace").rpartition(")")[2].split()
            ticks[int(file.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    while more := {pid for pid, (parent, _) in ticks.items() if parent in known} - known:
        known |= more
        yield from (ticks[pid][1] for pid in more)
