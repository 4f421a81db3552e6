"""A client that takes little of the machine: ready requests over connections that are kept open.

    send(key, request) -> a free connection, or the queue of those that wait for one
    thread: answers -> completed([(key, ok), ...]) -> the next that waits

Requests are bytes that were made before, an answer is looked at as far as its status and its
length, and answers that are there together are handed over together: 8 to 12 microseconds of a core
for each small request. It imports the standard library alone, so that a process of its own starts
at once.
"""

import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

Completed = Callable[[list[tuple[Any, bool]]], object]
"""Takes keys of requests that have come to an end, and whether by an answer with status 200."""

SILENCE_S = 30
"""Whole seconds without any answer after which a client gives up."""
_SEND_BYTES = 4 << 20
_PIECE_BYTES = 1 << 18
_OK = b"HTTP/1.1 200"
_LENGTH = b"content-length:"


class Client:
    """Connections to a server over HTTP/1.1, each with one request under way at a time.

    A connection that is lost is made anew, and its request has failed; where that is not possible
    either, or no answer comes for `SILENCE_S`, all requests fail from then on.

    Args:
        host: Where the server listens.
        port: Where the server listens.
        connections: How many requests are under way at once; others wait in the client.
        completed: Called in the client's thread.

    Raises:
        OSError: The server cannot be reached.

    """

    def __init__(self, host: str, port: int, connections: int, completed: Completed):
        self._completed = completed
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Any, bytes]] = deque()
        self._connections = [_Connection(host, port) for _ in range(connections)]
        self._free = list(self._connections)
        self._ended = False
        self._thread = threading.Thread(target=self._work, name="dlrm-load", daemon=True)
        self._thread.start()

    def send(self, key: Any, request: bytes) -> None:
        """Send a request, or let it wait for a connection; `completed` gets its key in any case."""
        with self._lock:
            connection = None
            if not self._ended:
                if not self._free:
                    self._waiting.append((key, request))
                    return
                connection = self._free.pop()
                connection.key = key
        if connection is None:
            self._completed([(key, False)])
        else:
            connection.send(request)

    def close(self) -> None:
        """Close all connections; what is under way fails."""
        self._ended = True
        for connection in self._connections:
            connection.abort()
        self._thread.join()

    def _work(self) -> None:
        poll = select.epoll()
        by_number = {connection.number: connection for connection in self._connections}
        for number in by_number:
            poll.register(number, select.EPOLLIN)
        silent_s = 0
        while by_number and not self._ended and silent_s < SILENCE_S:
            events = poll.poll(1.0)
            idle = len(self._free) == len(by_number)
            silent_s = 0 if events or idle else silent_s + 1
            ends: list[tuple[Any, bool]] = []
            for number, _ in events:
                connection = by_number[number]
                outcome = connection.receive()
                if outcome is not None and connection.key is not None:
                    ends.append((connection.key, outcome))
                if connection.lost:
                    del by_number[number]
                    with self._lock, suppress(ValueError):
                        self._free.remove(connection)
                    if self._ended or not connection.renew():
                        continue
                    by_number[connection.number] = connection
                    poll.register(connection.number, select.EPOLLIN)
                if outcome is not None:
                    self._next(connection)
            if ends:
                self._completed(ends)
        poll.close()
        self._end()

    def _next(self, connection: "_Connection") -> None:
        """Let a connection that is done send what waits, or be free."""
        with self._lock:
            if not self._waiting:
                connection.key = None
                self._free.append(connection)
                return
            connection.key, request = self._waiting.popleft()
        connection.send(request)

    def _end(self) -> None:
        """Fail what is under way and what waits."""
        with self._lock:
            self._ended = True
            keys = [connection.key for connection in self._connections]
            keys += [key for key, _ in self._waiting]
            self._waiting.clear()
        for connection in self._connections:
            connection.close()
        if ends := [(key, False) for key in keys if key is not None]:
            self._completed(ends)


class _Connection:
    """A connection, and the answer that it waits for."""

    def __init__(self, host: str, port: int):
        self._address = host, port
        self.key: Any = None
        """Of the request that is under way."""
        self._connect()

    def renew(self) -> bool:
        """Connect again, and return whether that was possible."""
        try:
            self._connect()
        except OSError:
            self.key = None
            return False
        return True

    def send(self, request: bytes) -> None:
        # Where it is lost, who receives sees that, too, and ends the request.
        with suppress(OSError):
            self._socket.sendall(request)

    def receive(self) -> bool | None:
        """Take what has come; return whether the answer is 200 where it is whole, or lost."""
        try:
            piece = self._socket.recv(_PIECE_BYTES)
        except OSError:
            piece = b""
        if not piece:
            self.lost = True
            self._socket.close()
            return False
        if self._missing == 0:
            piece = self._start + piece
            head = piece.find(b"\r\n\r\n")
            if head < 0:
                self._start = piece
                return None
            self._start, self._ok = b"", piece.startswith(_OK)
            self._missing = head + 4 + _length(piece, head)
        self._missing -= len(piece)
        return self._ok if self._missing <= 0 else None

    def abort(self) -> None:
        """Let whoever waits for this connection see that it is lost."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address, timeout=10)
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A large request leaves at once, and does not hold up those behind it.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BYTES)
        self.number = self._socket.fileno()
        self.lost = self._ok = False
        self._start, self._missing = b"", 0


def _length(answer: bytes, head: int) -> int:
    """Return the bytes of the body of an answer whose head ends there."""
    at = answer.find(_LENGTH, 0, head)
    if at < 0:
        at = answer[:head].lower().find(_LENGTH)
    if at < 0:
        return 0
    start = at + len(_LENGTH)
    return int(answer[start : answer.find(b"\r", start)])


def request(
    host: str, path: str, body: bytes = b"", headers: Sequence[tuple[str, str]] = ()
) -> bytes:
    """Return the bytes of a request: GET without a body, POST with one."""
    length = [("content-length", str(len(body)))] if body else []
    lines = [f"{name}: {value}" for name, value in [("host", host), *headers, *length]]
    method = "POST" if body else "GET"
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode() + body
