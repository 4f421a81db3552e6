"""The process that starts the server's, and another one where that dies.

    supervisor ──fork──> worker: opens the models, listens, answers
        │ waits            └──pipe──> "ready", and its ports; "done" before it ends by itself
        └─ without "done": another worker, at the same ports

The supervisor has no model, no socket and no thread, so that nothing of what a request does
reaches it. Clients of a worker that died have their connections reset. A worker whose supervisor
died ends as at SIGTERM.
"""

import atexit
import ctypes
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import ClassVar, NoReturn

log = logging.getLogger(__name__)

Ports = tuple[int, int | None]
"""Of HTTP and of gRPC; None without gRPC."""

SIGNALS = (signal.SIGTERM, signal.SIGINT)
MOST_FAILURES = 4
"""Workers in a row that died before they were ready, after which there is no other."""
_FIRST_DELAY_S = 0.25
_PR_SET_PDEATHSIG = 1
_DONE = b"done"
_MOST_SAID = 64


class Post:
    """What a worker knows of its supervisor.

    Args:
        pipe: Where it says how it is.
        ports: Those of the worker before it; None of the first one.

    """

    mine: ClassVar["Post | None"] = None
    """That of this process; None where it has no supervisor."""

    def __init__(self, pipe: int, ports: Ports | None):
        self._pipe, self.ports = pipe, ports
        self.is_ready = False

    def ready(self, ports: Ports) -> None:
        """Say that requests are answered at these ports."""
        self.is_ready = True
        self._say(f"{ports[0]} {ports[1] or ''}\n".encode())

    def done(self) -> None:
        """Say that the process ends because it is to end."""
        self._say(_DONE)

    def _say(self, text: bytes) -> None:
        # The supervisor may be gone.
        with suppress(OSError):
            os.write(self._pipe, text)


def can_supervise() -> bool:
    """Whether this process can be a supervisor: it has one thread, and forks."""
    return sys.platform == "linux" and threading.active_count() == 1


def supervise(run: Callable[[], int]) -> int:
    """Run a server in a process of its own, and again where it dies; return its exit status.

    SIGTERM and SIGINT are handed on, and end it.

    Args:
        run: Serves, and calls `Post.mine.ready`; returns an exit status.

    """
    supervisor = _Supervisor()
    failures, ports = 0, None
    while True:
        said, code = supervisor.run(run, ports)
        first, was_ready, _ = said.partition(b"\n")
        if was_ready:
            http, grpc = first.decode().split(" ")
            ports, failures = (int(http), int(grpc) if grpc else None), 0
        else:
            failures += 1
        if said.endswith(_DONE) or supervisor.stopped:
            return code if code >= 0 else _die(-code)
        how = f"with status {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
        if failures == MOST_FAILURES:
            log.error("the server died %s, %d times before it was ready", how, failures)
            return code if code > 0 else 1
        log.error("the server died %s: another one is started", how)
        supervisor.wait(_FIRST_DELAY_S * 2**failures if failures else 0.0)


class _Supervisor:
    """The signals of the supervisor, and the worker that they go to."""

    def __init__(self) -> None:
        self.stopped: int = 0
        """The signal that ends all; 0 before."""
        self._worker = 0
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in self._before.items():
            # What is ignored stays so, as in the background of a script.
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._stop)

    def run(self, run: Callable[[], int], ports: Ports | None) -> tuple[bytes, int]:
        """Return what a worker said, and its exit status, negative of a signal."""
        parent, (reading, writing) = os.getpid(), os.pipe()
        self._worker = os.fork()
        if self._worker == 0:
            os.close(reading)
            self._become_worker(parent)
            _work(run, Post(writing, ports))
        os.close(writing)
        if self.stopped:
            # It came before there was anybody to hand it on to.
            os.kill(self._worker, self.stopped)
        _, status = os.waitpid(self._worker, 0)
        self._worker = 0
        # Who has a copy of the other end holds nobody up.
        os.set_blocking(reading, False)
        said = b""
        with suppress(BlockingIOError):
            said = os.read(reading, _MOST_SAID)
        os.close(reading)
        return said, os.waitstatus_to_exitcode(status)

    def wait(self, seconds: float) -> None:
        """Wait, for no longer than until a signal comes."""
        until = time.monotonic() + seconds
        while not self.stopped and time.monotonic() < until:
            time.sleep(0.02)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.stopped = number
        if self._worker:
            os.kill(self._worker, number)

    def _become_worker(self, parent: int) -> None:
        """Take signals as before, from the supervisor alone where a terminal sends them."""
        os.setpgid(0, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)


def _work(run: Callable[[], int], mine: Post) -> NoReturn:
    """Be a worker, up to the end of the process."""
    Post.mine = mine
    try:
        status = run()
        mine.done()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        mine.done()
    except BaseException:
        traceback.print_exc()
        status = 1
        if not mine.is_ready:
            mine.done()
    leave(status)


def leave(status: int) -> NoReturn:
    """End before the interpreter goes: the server's threads, waking then, would abort it."""
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _die(number: int) -> NoReturn:
    """End by a signal, as the worker did."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pause()
    raise AssertionError
