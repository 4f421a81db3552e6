"""How many cores this process may use: by its affinity, and by the quota of its container.

A container's quota is a share of time, not a set of cores: threads beyond it are all put aside at
once, for the rest of a period, while those that wait for them burn what is left of it. The groups
that a process is in (`/proc/self/cgroup`, version 1 and 2) each may have a quota; the least counts.
"""

import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path

PROCESS = Path("/proc/self")
LIMITED = "DLRM_LIMITED"
"""Variable that is set where `limit_pools` has chosen OMP_NUM_THREADS, and not the user."""
SPINS = 20_000
"""How often a thread of torch's looks whether another one is ready, before it sleeps: some .3 ms,
in which all comes that comes soon. By default it looks 300,000 times, while the system may have put
that other one aside for this very thread."""


def count(process: Path = PROCESS) -> int:
    """Return the cores that this process may use, at least 1; half a core and more counts as one.

    Args:
        process: Folder in which Linux says which groups the process is in, and where these are.

    """
    allowed = affinity()
    shares = quota(process)
    return allowed if shares is None else max(1, min(allowed, round(shares)))


def affinity() -> int:
    """Return the number of cores that the scheduler lets this process run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(process: Path = PROCESS) -> float | None:
    """Return how many cores' time the groups of a process leave it; None where none has a quota.

    Args:
        process: See `count`.

    """
    return min(_quotas(process), default=None)


def share(processes: int) -> dict[str, int]:
    """Return the variable with the threads of each of several processes on this machine.

    Empty where the user's OMP_NUM_THREADS says it.
    """
    if "OMP_NUM_THREADS" in os.environ and LIMITED not in os.environ:
        return {}
    return {"OMP_NUM_THREADS": max(1, count() // processes)}


def limit_pools(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let torch and Polars take no more threads than a quota allows; the user's words stay.

    Both count the cores of the affinity by themselves. This comes before they are imported, or as
    early as can be. Threads of torch that wait for each other sleep after a while, see `SPINS`.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))
    allowed = count()
    if allowed >= affinity():
        return
    environment.setdefault("POLARS_MAX_THREADS", str(allowed))
    if "OMP_NUM_THREADS" in environment:
        return
    environment.update({"OMP_NUM_THREADS": str(allowed), LIMITED: "1"})
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(min(allowed, torch.get_num_threads()))


def _quotas(process: Path) -> Iterator[float]:
    """Yield the quota of each group that a process is in and that has one, in cores."""
    with suppress(OSError, ValueError):
        mounts = list(_mounts(process / "mountinfo"))
        for line in (process / "cgroup").read_text().splitlines():
            number, controllers, group = line.split(":", 2)
            version = 2 if number == "0" and not controllers else 1
            if version == 1 and "cpu" not in controllers.split(","):
                continue
            for kind, root, folder in mounts:
                if kind == version:
                    yield from _nested(version, folder, _within(group, root))


def _mounts(mountinfo: Path) -> Iterator[tuple[int, str, Path]]:
    """Yield where groups with quotas are: version, the group at the root, its folder."""
    for line in mountinfo.read_text().splitlines():
        fields, _, system = line.partition(" - ")
        root, folder = fields.split()[3:5]
        kind, _, options = system.split(maxsplit=2)
        if kind == "cgroup2":
            yield 2, root, Path(folder)
        elif kind == "cgroup" and "cpu" in options.split(","):
            yield 1, root, Path(folder)


def _within(group: str, root: str) -> str:
    """Return the path of a group below the one that is mounted; of another container it is that."""
    inside = group == root or group.startswith(root.rstrip("/") + "/")
    return group[len(root.rstrip("/")) :].strip("/") if inside else ""


def _nested(version: int, folder: Path, group: str) -> Iterator[float]:
    """Yield the quotas of a group and of those around it, in cores."""
    inner = folder / group
    for place in (inner, *inner.parents):
        with suppress(OSError, ValueError):
            if version == 2:
                limit, period = (place / "cpu.max").read_text().split()
            else:
                limit, period = (
                    (place / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
                )
            # No limit is "max", or -1.
            if limit != "max" and int(limit) > 0:
                yield int(limit) / int(period)
        if place == folder:
            return
