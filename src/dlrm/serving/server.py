"""The process of a server: a socket, granian in front of the application, and its end.

SIGTERM and SIGINT end it: no connection is taken any more, what was accepted is answered first, for
as long as a request has time. Who has sent half a request by then is cut off.
"""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrm.errors import ConfigError, MissingExtraError
from dlrm.serving import shadow
from dlrm.serving.app import App
from dlrm.serving.batcher import Batcher
from dlrm.serving.endpoints import Endpoints
from dlrm.serving.limits import Limits
from dlrm.serving.repository import Repository

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LAST_S = 1.0
"""Seconds in which answers to requests whose time is up still reach their clients."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a server listens.

    Raises:
        ConfigError: It is none, or one of certificate and key is missing.

    """

    host: str = "127.0.0.1"
    """An address of this machine; 0.0.0.0 for all."""
    port: int = 8000
    """Of HTTP; 0 for one that is free."""
    grpc_port: int | None = None
    """Of gRPC; 0 for one that is free, None for no gRPC."""
    tls_cert: Path | None = None
    """Certificates of TLS, as PEM; None for none."""
    tls_key: Path | None = None
    """Its key, as PEM."""

    def __post_init__(self) -> None:
        for port in (self.port, self.grpc_port or 0):
            if not 0 <= port < 1 << 16:
                raise ConfigError(f"the port is {port}, expected 0 to {(1 << 16) - 1}")
        if self.grpc_port and self.grpc_port == self.port:
            raise ConfigError(f"HTTP and gRPC cannot both listen at port {self.port}")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("TLS takes both, --tls-cert and --tls-key")
        for file in (self.tls_cert, self.tls_key):
            if file is not None and not file.is_file():
                raise ConfigError(f"{file}: no such file")

    @property
    def tls(self) -> tuple[bytes, bytes] | None:
        """Key and certificates; None without TLS."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return self.tls_key.read_bytes(), self.tls_cert.read_bytes()

    @property
    def is_loopback(self) -> bool:
        """Whether nobody else's machine reaches it."""
        return self.host.startswith("127.") or self.host in ("localhost", "::1")

    def checked(self) -> int:
        """Return the port, after a look whether it is free.

        Granian shares a port with whoever else listens there, who would get some of the requests.

        Raises:
            ConfigError: It is not, or the host is no address of this machine.

        """
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                raise ConfigError(
                    f"nothing can listen at {self.host}, port {self.port} ({error.strerror}): "
                    "give another --port"
                ) from None
            return probe.getsockname()[1]


class Server:
    """A server of models, in this process.

    Args:
        repository: Its models, loaded.
        limits: Of requests.
        address: Where it listens.
        token: See `Endpoints`.
        shadows: `MODEL=SHADOW` each; see `dlrm.serving.shadow`.

    Raises:
        MissingExtraError: Granian is not installed.
        ConfigError: The port is taken, or there is no such model for a shadow.

    """

    def __init__(
        self,
        repository: Repository,
        limits: Limits,
        address: Address,
        token: str | None = None,
        shadows: Sequence[str] = (),
    ):
        try:
            from granian.constants import HTTPModes, Interfaces
            from granian.server.embed import Server as Granian
        except ImportError:
            raise MissingExtraError("dlrm serve (granian)", "serve") from None
        self.port = address.checked()
        self.host = address.host
        scheme = "http" if address.tls_cert is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"{scheme}://{host}:{self.port}"
        self.grpc_port: int | None = None
        """Where gRPC listens, once `run` has called `ready`; None where it does not."""
        self._shadows = shadow.pairs(shadows, repository, limits)
        self._limits = limits
        self._batcher = Batcher(limits)
        self._endpoints = Endpoints(repository, self._batcher, limits, token, self._shadows)
        self._address = address
        self._make: Callable[[], Any] = lambda: Granian(
            App(self._endpoints),
            address=self.host,
            port=self.port,
            interface=Interfaces.RSGI,
            # In HTTP/2 as in either, who connects and says nothing would never be cut off.
            http=HTTPModes.http1,
            websockets=False,
            log_enabled=False,
            ssl_cert=address.tls_cert,
            ssl_key=address.tls_key,
            backlog=1024,
            # Connections, most of which wait for their clients: the queue has a limit of its own.
            backpressure=1 << 16,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._granian: Any = None
        self._serving: asyncio.Task[None] | None = None
        self._grpc: Any = None
        self._ending: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._batcher.waiting

    def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Serve until a signal comes, or `stop` is called; answer what was accepted.

        Args:
            ready: Called when connections are taken.

        """
        try:
            asyncio.run(self._run(ready))
        finally:
            self._batcher.close()
            for pairs in self._shadows.values():
                for pair in pairs:
                    pair.close()

    def stop(self) -> None:
        """End `run`, from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._end)

    async def _run(self, ready: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._granian = self._make()
        await self._start_grpc()
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._loop.add_signal_handler(number, self._end)
        self._serving = serving = asyncio.create_task(self._granian.serve())
        while not serving.done() and not await self._connects():
            await asyncio.sleep(0.01)
        if not serving.done():
            ready()
        # It may be cancelled, which is no reason to end here.
        await asyncio.wait([serving])
        if not serving.cancelled():
            serving.result()
        if self._grpc is not None:
            await self._grpc.stop()

    def _end(self) -> None:
        """Begin to end, in the event loop; both front ends finish what they accepted."""
        self._granian.stop()
        # Granian would wait half a minute for the rest of a head.
        if self._loop is not None and self._serving is not None:
            self._loop.call_later(self._limits.timeout_s + _LAST_S, self._serving.cancel)
        # A signal may come again.
        if self._grpc is not None and self._ending is None:
            self._ending = asyncio.ensure_future(self._grpc.stop())

    async def _start_grpc(self) -> None:
        address = self._address
        if address.grpc_port is None:
            return
        try:
            from dlrm.serving.grpc_service import GrpcService
        except ImportError:
            raise MissingExtraError("dlrm serve --grpc-port (grpcio)", "serve") from None

        self._grpc = GrpcService(self._endpoints)
        self.grpc_port = await self._grpc.start(self.host, address.grpc_port, address.tls)

    async def _connects(self) -> bool:
        try:
            _, writer = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return False
        writer.close()
        return True
