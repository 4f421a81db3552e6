"""A request as granian hands it to the application, and the response to it."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from dlrm.serving.limits import Limits, bad
from dlrm.serving.protocol import decompressed

T = TypeVar("T")

_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_LONG_BYTES = 64 << 10
"""Of a body from which on it is parsed beside the event loop."""


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    body: bytes
    headers: list[tuple[str, str]]
    status: int = 200

    @classmethod
    def json(cls, value: Any, status: HTTPStatus = HTTPStatus.OK) -> "Response":
        """Return a value as JSON, in which NaN is an error."""
        headers = [("content-type", "application/json")]
        return cls(_ENCODER.encode(value).encode(), headers, status.value)

    @classmethod
    def text(cls, text: str, kind: str) -> "Response":
        """Return a text of some content type."""
        return cls(text.encode(), [("content-type", kind)])

    @classmethod
    def truth(cls, yes: bool) -> "Response":
        """Return an empty answer, whose status is the answer."""
        return cls(b"", [], 200 if yes else HTTPStatus.SERVICE_UNAVAILABLE.value)


@dataclass(slots=True)
class Request:
    """What is asked, of which the body may not be here yet."""

    scope: Any
    protocol: Any
    headers: Any
    limits: Limits
    task: asyncio.Task[Any]
    """The one that answers it."""
    read: bool = False
    """Whether all of the body is here."""

    async def parsed(self, parse: Callable[[bytes], T], pool: ThreadPoolExecutor) -> T:
        """Return what `parse` makes of the body, in a thread of the pool where that takes long."""
        body = await self._body()
        encoding = (self.headers.get("content-encoding") or "").lower()
        if not encoding and len(body) <= _LONG_BYTES:
            return parse(body)
        return await asyncio.get_running_loop().run_in_executor(
            pool, lambda: parse(decompressed(body, encoding, self.limits))
        )

    async def _body(self) -> bytes:
        """Return the body as it came; see `Limits.check_body`."""
        length = self.headers.get("content-length") or ""
        try:
            if length.isascii() and length.isdecimal():
                self.limits.check_body(int(length[:18]))
                body = await self.protocol()
            else:
                pieces, size = [], 0
                async for piece in self.protocol:
                    size += len(piece)
                    self.limits.check_body(size)
                    pieces.append(piece)
                body = b"".join(pieces)
        except RuntimeError:
            # Granian's word for a client that has gone; nobody reads this.
            raise bad("the body ended too early") from None
        self.read = True
        return body
