"""A `dlrm serve` of its own process: when it is ready, who works in it, what memory it takes."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

START_S = 120
"""Seconds after which a server that does not listen yet is given up."""


class ServedProcess:
    """A server at a free port, until the end of the block.

    Args:
        words: Of `dlrm serve`: runs and flags.
        folder: Where it runs.
        log: Takes what it writes to standard error.

    """

    def __init__(self, words: Sequence[str], folder: Path, log: Path):
        self._log = log.open("w+")
        began = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dlrm", "serve", *words, "--port", "0"],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )
        self.port = 0
        while not self.port:
            if self._process.poll() is not None or time.perf_counter() - began > START_S:
                self.close()
                raise SystemExit(f"dlrm serve did not start: {log.read_text()[-2000:]}")
            time.sleep(0.005)
            if ready := re.search(r" at https?://[^\s:]+:(\d+)", log.read_text()):
                self.port = int(ready[1])
        self.ready_s = time.perf_counter() - began
        """Seconds from the command to its first connection."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def log(self) -> str:
        """What it has written so far."""
        return Path(self._log.name).read_text(errors="replace")

    @property
    def worker(self) -> int | None:
        """The process that answers, where it is not the one that was started."""
        children = [
            pid for pid in _children(self._process.pid) if "resource_tracker" not in _words(pid)
        ]
        return max(children, key=resident, default=None)

    @property
    def resident_bytes(self) -> int:
        """Memory of the process that answers."""
        return resident(self.worker or self._process.pid)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> int | None:
        """Return its exit status; None where it does not end in time."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout_s)
        return None

    def close(self) -> None:
        """End it, and what it started."""
        if self._process.poll() is None:
            self.terminate()
            if self.wait(20) is None:
                self._process.kill()
                self._process.wait()
        self._log.close()


def resident(pid: int) -> int:
    """Return the memory of a process in bytes; 0 of one that is gone."""
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    return 0


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _words(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
