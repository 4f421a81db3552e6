"""The command line as a program, `dlrm` and `python -m dlrm`.

Whoever stops a program that is about to start wants no traceback, so this is settled before
anything else is imported.
"""

import gc
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType


def main() -> int:
    """Run the command line of this process; return its exit status."""
    before = signal.getsignal(signal.SIGINT)
    # Where interrupts are ignored, as in the background of a script, they still are.
    stop = _stop if before is signal.default_int_handler else before
    signal.signal(signal.SIGINT, stop)
    # What is imported stays to the end: to search it for garbage would take a tenth of the time of
    # importing it, and as much again whenever the command makes many objects.
    gc.disable()
    from dlrm import cli

    def started() -> None:
        signal.signal(signal.SIGINT, before)
        gc.freeze()
        gc.enable()

    def run() -> int:
        return cli.main(started=started)

    try:
        return _serve(run) if sys.argv[1:2] == ["serve"] else run()
    finally:
        # Nothing is left to be saved while the interpreter goes, which would look through all
        # objects of torch for some that nobody needs: .4 s.
        signal.signal(signal.SIGINT, stop)
        gc.freeze()


def _serve(run: Callable[[], int]) -> int:
    """Run a server, in a process of its own where that can be."""
    from dlrm.commands.serve import supervised
    from dlrm.serving.supervisor import can_supervise, leave

    if can_supervise():
        return supervised(run)
    return leave(run())


def _stop(number: int, frame: FrameType | None) -> None:
    """End at once: nothing has begun that would have to be undone."""
    os.write(2, b"dlrm: stopped\n")
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
