"""The connections of this process to other ranks, to be cut when the run is over.

gloo offers no way to give up what it waits for: a rank that waits for one that stopped, because a
third is gone, would wait until its timeout. Who waits on a connection wakes when it is shut down.
"""

import os
import socket
from contextlib import suppress
from pathlib import Path

_OPEN = Path("/proc/self/fd")


def connections(but_port: int) -> dict[int, str]:
    """Return the open TCP connections: descriptor -> what identifies it. Linux only, else none.

    Args:
        but_port: Connections from or to it, the store's, are left out.

    """
    names: dict[int, str] = {}
    with suppress(OSError):
        for descriptor in [int(entry.name) for entry in _OPEN.iterdir()]:
            name = _name(descriptor)
            if name.startswith("socket:") and _leads_away(descriptor, but_port):
                names[descriptor] = name
    return names


def shut(lines: dict[int, str]) -> None:
    """Shut down those of the connections that are still open."""
    for descriptor, name in lines.items():
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as line:
            # The number may be another file's by now.
            if _name(line.fileno()) == name:
                line.shutdown(socket.SHUT_RDWR)


def _leads_away(descriptor: int, but_port: int) -> bool:
    # A listener has no peer; gloo dies when its own is shut.
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as line:
        if line.family in (socket.AF_INET, socket.AF_INET6):
            return but_port not in (line.getsockname()[1], line.getpeername()[1])
    return False


def _name(descriptor: int) -> str:
    try:
        return str((_OPEN / str(descriptor)).readlink())
    except OSError:
        return ""
