"""Several processes of one command on this machine, as one: started, stopped and ended together.

Each is a rank of a world (see `launch_env`). Rank 0 keeps the terminal. Signals are passed
on, once each; when one rank fails the others may see it and end by themselves, then they are ended.
None outlives this process, even when it is killed. torchrun ends the others at once instead, so
that nothing is saved after Ctrl-C, and leaves its own behind when it is killed.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO

from dlrm import cores
from dlrm.errors import ConfigError
from dlrm.parallel.launch_env import BY_US

GRACE_S = 30.0
"""Given to ranks that lost another one, which need some seconds to find out which, more on a busy
machine."""
TERM_S = 5.0
"""Between SIGTERM and SIGKILL."""
CUT = 3
"""Exit status of a rank that ended because another one did."""
PROGRAM = (sys.executable, "-P", "-m", "dlrm")
"""This program; modules of the current folder are no part of it."""
_POLL_S = 0.05
_TAIL_LINES = 30


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    stderr: IO[bytes] | None
    """What it wrote to standard error; None for rank 0, which wrote it to the terminal."""
    status: int | None = None
    asked: signal.Signals | None = None
    """The last signal that it was sent from here."""

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.asked = number


def launch(procs: int, words: Sequence[str], *, command: Sequence[str] = PROGRAM) -> int:
    """Run `command words` as `procs` ranks of one world, until all have ended.

    Returns:
        The exit status: 0, that of the rank that failed first (128 + n for signal n), 130 after an
        interrupt.

    Raises:
        ConfigError: No such number of processes can be started.

    """
    if procs < 1:
        raise ConfigError(f"--procs is {procs}, expected 1 or more")
    ranks: list[_Rank] = []
    with ExitStack() as stack:
        stack.callback(_end_all, ranks)
        requests = stack.enter_context(_pass_signals_on(ranks))
        for rank in _start(procs, [*command, *words], stack):
            ranks.append(rank)
        for rank in ranks if requests else ():
            if rank.asked is None:
                rank.send(signal.SIGINT)
        failures = _wait(ranks, requests)
        if requests and all(rank.status in (0, 130, CUT) or rank.asked for rank in ranks):
            return 130
        return _report(failures) if failures else 0


def _start(procs: int, command: list[str], stack: ExitStack) -> Iterator[_Rank]:
    # Listening here and handing that over leaves no moment in which another program takes the port.
    with socket.create_server(("127.0.0.1", 0), backlog=max(128, procs)) as listener:
        common = {
            "WORLD_SIZE": procs,
            "LOCAL_WORLD_SIZE": procs,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": listener.getsockname()[1],
            "TORCHELASTIC_USE_AGENT_STORE": False,
            "TORCHELASTIC_RESTART_COUNT": 0,
            BY_US: 1,
            **cores.share(procs),
        }
        defaults = {
            # The store's client warns of each connection that breaks; our errors say more.
            "TORCH_CPP_LOG_LEVEL": "ERROR",
        }
        for number in range(procs):
            first = number == 0
            rank_env = {"RANK": number, "LOCAL_RANK": number}
            if first:
                rank_env["DLRM_LISTENER"] = listener.fileno()
            env = defaults | dict(os.environ) | common | rank_env
            stderr = None if first else stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            process = subprocess.Popen(
                command,
                env={name: str(value) for name, value in env.items()},
                stdin=None if first else subprocess.DEVNULL,
                stdout=None if first else subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=(listener.fileno(),) if first else (),
                # Ctrl-C goes to all processes of a terminal's foreground group; it would reach the
                # ranks twice.
                start_new_session=True,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - one call, looked up before
            )
            yield _Rank(number, process, stderr)


def _die_with_parent() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    # Looked up before the fork, after which little is safe.
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def set_signal() -> None:
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return set_signal


@contextmanager
def _pass_signals_on(ranks: list[_Rank]) -> Iterator[list[float]]:
    """Pass SIGINT and SIGTERM to every rank; gives the times at which they came."""
    times: list[float] = []

    def pass_on(number: int, *_: object) -> None:
        times.append(time.monotonic())
        for rank in ranks:
            rank.send(signal.Signals(number))

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield times
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(ranks: list[_Rank], requests: list[float]) -> list[_Rank]:
    """Wait until all ranks have ended; return those that failed, in the order in which they did."""
    failures: list[_Rank] = []
    ending: list[tuple[float, signal.Signals]] = []
    while running := [rank for rank in ranks if rank.status is None]:
        for rank in running:
            rank.status = rank.process.poll()
            if rank.status:
                failures.append(rank)
        now = time.monotonic()
        # After an interrupt rank 0 saves, which may take long, while others have ended: only a
        # failure, or a second interrupt, limits the time.
        failed = any(not (requests and rank.status == 130) for rank in failures)
        if not ending and (failed or len(requests) > 1):
            term = now + GRACE_S
            ending = [(term, signal.SIGTERM), (term + TERM_S, signal.SIGKILL)]
        for when, number in ending:
            for rank in ranks if now >= when else ():
                if rank.asked != number:
                    rank.send(number)
        time.sleep(_POLL_S)
    return failures


def _end_all(ranks: list[_Rank]) -> None:
    for rank in ranks:
        rank.send(signal.SIGKILL)
        rank.process.wait()


def _report(failures: list[_Rank]) -> int:
    """Say which rank failed, and how; return its exit status."""
    first_failures = [rank for rank in failures if rank.status != CUT and not rank.asked]
    culprit = (first_failures or failures)[0]
    status = culprit.status or 0
    if status < 0:
        name = signal.Signals(-status).name
        why = " (out of memory?)" if name == "SIGKILL" and not culprit.asked else ""
        print(f"dlrm: rank {culprit.number} was killed by {name}{why}", file=sys.stderr)
    elif culprit.stderr is not None:
        print(f"dlrm: rank {culprit.number} ended with status {status}", file=sys.stderr)
    if culprit.stderr is not None:
        culprit.stderr.seek(0)
        lines = culprit.stderr.read().decode(errors="replace").splitlines()
        for line in lines[-_TAIL_LINES:]:
            print(f"  rank {culprit.number}: {line}", file=sys.stderr)
    elif status < 0 and sys.stderr.isatty():
        print("\x1b[?25h", end="", file=sys.stderr)  # a progress bar hides the cursor
    return 128 - status if status < 0 else status
