"""The command line as a program, `dlrm` and `python -m dlrm`.

Whoever stops a program that is about to start wants no traceback, so this is settled before
anything else is imported.
"""

import atexit
import os
import signal
import sys
from contextlib import suppress
from types import FrameType


def main() -> int:
    """Run the command line of this process; return its exit status."""
    before = signal.getsignal(signal.SIGINT)
    # Where interrupts are ignored, as in the background of a script, they still are.
    stop = _stop if before is signal.default_int_handler else before
    signal.signal(signal.SIGINT, stop)
    from dlrm import cli

    try:
        status = cli.main(started=lambda: signal.signal(signal.SIGINT, before))
    finally:
        # Nothing is left to be saved while the interpreter goes.
        signal.signal(signal.SIGINT, stop)
    if "granian" in sys.modules:
        _leave(status)
    return status


def _leave(status: int) -> None:
    """End before the interpreter goes: the server's threads, waking then, would abort it."""
    atexit._run_exitfuncs()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _stop(number: int, frame: FrameType | None) -> None:
    """End at once: nothing has begun that would have to be undone."""
    os.write(2, b"dlrm: stopped\n")
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
