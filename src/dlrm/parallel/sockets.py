"""The sockets of this process: which lead to other ranks, and through which interface.

gloo offers no way to give up what it waits for: a rank that waits for one that stopped, because a
third is gone, would wait until its timeout. Who waits on a connection wakes when it is shut down.
"""

import fcntl
import os
import socket
import struct
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
            # A listener has no peer; gloo dies when its own is shut.
            with suppress(OSError), _duplicate(descriptor) as line:
                ports = line.getsockname()[1], line.getpeername()[1]
                if line.family in (socket.AF_INET, socket.AF_INET6) and but_port not in ports:
                    names[descriptor] = name
    return names


def shut(lines: dict[int, str]) -> None:
    """Shut down those of the connections that are still open."""
    for descriptor, name in lines.items():
        with suppress(OSError), _duplicate(descriptor) as line:
            # The number may be another file's by now.
            if _name(line.fileno()) == name:
                line.shutdown(socket.SHUT_RDWR)


def interface_to(address: str, port: int) -> str | None:
    """Return the network interface whose address this host uses towards another.

    Left alone, gloo takes what the host's own name resolves to, which other hosts often cannot
    reach.

    """
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
        # Connecting a datagram socket sends nothing; it chooses the route.
        towards.connect((address, port))
        source = socket.inet_aton(towards.getsockname()[0])
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an address
                request = struct.pack("256s", name.encode())
                if fcntl.ioctl(towards.fileno(), 0x8915, request)[20:24] == source:  # SIOCGIFADDR
                    return name
    return None


def _duplicate(descriptor: int) -> socket.socket:
    if not _name(descriptor).startswith("socket:"):
        raise OSError(f"descriptor {descriptor} is no socket")
    return socket.socket(fileno=os.dup(descriptor))


def _name(descriptor: int) -> str:
    return str((_OPEN / str(descriptor)).readlink())
