"""A child of fork() has the thread pools of its parent without their threads.

Whatever hands work to such a pool waits for ever. OpenMP's is left alone where torch computes on
one thread, so a child does that. Polars' has no such switch: where the parent has started it, all
that needs it raises a ForkError. What is imported before gunicorn or multiprocessing forks is the
usual way here.
"""

import os
import re
import sys
from pathlib import Path

from dlrm.errors import ForkError

_TASKS = Path("/proc/self/task")


class _Pool:
    """Whether this process lacks the threads of Polars' pool."""

    started = lost = False


def pool_lost() -> bool:
    """Whether this process was forked from one whose Polars pool was at work."""
    return _Pool.lost


def check_pool() -> None:
    """Raise a ForkError where Polars would wait for ever."""
    if _Pool.lost:
        raise ForkError(
            "this process was forked from one that used Polars, whose threads it lacks: start it "
            'by spawn, e.g. multiprocessing.get_context("spawn"), or fork before dlrm is used, '
            "e.g. gunicorn without --preload; numbers and texts can be scored nevertheless, if the "
            "model was opened before the fork"
        )


def _before() -> None:
    _Pool.started = _Pool.lost or _pool_started()


def _in_child() -> None:
    _Pool.lost = _Pool.started
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)


def _pool_started() -> bool:
    """Whether Polars has started its threads, which are called polars-0, polars-1, ..."""
    if not _TASKS.is_dir():
        return "polars" in sys.modules
    # A thread may end meanwhile.
    names = [_text(task / "comm") for task in _TASKS.iterdir()]
    return any(re.fullmatch(r"polars-\d+", name) for name in names)


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_child=_in_child)
