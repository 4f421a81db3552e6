"""A server in a thread of this process, for tests."""

import http.client
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dlrm.serving.limits import Limits
from dlrm.serving.model import BackEnd
from dlrm.serving.repository import Repository
from dlrm.serving.server import Address, Server


@dataclass
class Served:
    server: Server
    repository: Repository

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def call(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, value: Any = None, **headers: str) -> tuple[int, Any]:
        body = None if value is None else json.dumps(value).encode()
        status, content = self.call(method, path, body, **headers)
        return status, json.loads(content) if content else None


@contextmanager
def serving(
    *runs: Any,
    back_end: BackEnd | None = None,
    token: str | None = None,
    address: Address | None = None,
    shadows: Sequence[str] = (),
    **limits: Any,
) -> Iterator[Served]:
    """Serve runs within the block."""
    repository = Repository([str(run) for run in runs], back_end or BackEnd())
    server = Server(repository, Limits(**limits), address or Address(port=0), token, shadows)
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(ready.set,))
    thread.start()
    try:
        assert ready.wait(30)
        yield Served(server, repository)
    finally:
        server.stop()
        thread.join(30)
        assert not thread.is_alive()
