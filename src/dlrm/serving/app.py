"""The routes of the server: what is asked where, and what comes back.

    GET  / (a page for people), /status (what it shows), /metrics, /openapi.json
    GET  /v2, /v2/health/live, /v2/health/ready, /v2/models/stats
    GET  /v2/models/NAME[/versions/V][/ready | /config | /stats | /columns], /v2/models/NAME/shadow
    POST /v2/models/NAME[/versions/V]/infer, /score[/NAME]
    POST /v2/repository/index, /v2/repository/models/NAME/load | unload

It is an application of RSGI, granian's interface: `await app.__rsgi__(scope, protocol)`. Errors are
JSON, `{"error": reason}`.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from importlib import resources
from typing import Any, TypeVar
from urllib.parse import unquote

from dlrm.serving.deadlines import Deadlines
from dlrm.serving.endpoints import SERVER, Endpoints, counted
from dlrm.serving.limits import Limits, RefusalError, bad
from dlrm.serving.metrics import prometheus
from dlrm.serving.openapi import document
from dlrm.serving.protocol import HEADER_LENGTH, decompressed, parse_json, read_infer
from dlrm.serving.rows import parse_rows, score_values

T = TypeVar("T")

log = logging.getLogger(__name__)

_PAGE_HEADERS = [
    ("content-type", "text/html; charset=utf-8"),
    (
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'",
    ),
]
_ENCODER = json.JSONEncoder(allow_nan=False, separators=(",", ":"))
_GET, _POST = "GET", "POST"
_LONG_BYTES, _LONG_ROWS = 64 << 10, 1024
"""From which on a body is parsed, and an answer written, beside the event loop."""


@dataclass(frozen=True, slots=True)
class _Response:
    body: bytes
    headers: list[tuple[str, str]]
    status: int = 200

    @classmethod
    def json(cls, value: Any, status: HTTPStatus = HTTPStatus.OK) -> "_Response":
        headers = [("content-type", "application/json")]
        return cls(_ENCODER.encode(value).encode(), headers, status.value)

    @classmethod
    def text(cls, text: str, kind: str) -> "_Response":
        return cls(text.encode(), [("content-type", kind)])

    @classmethod
    def truth(cls, yes: bool) -> "_Response":
        """An empty answer, whose status is the answer."""
        return cls(b"", [], 200 if yes else HTTPStatus.SERVICE_UNAVAILABLE.value)


@dataclass(slots=True)
class _Request:
    scope: Any
    protocol: Any
    headers: Any
    limits: Limits
    task: asyncio.Task[Any]
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


@dataclass(frozen=True, slots=True)
class _Route:
    """What answers the requests at a path."""

    answer: Callable[[_Request], Awaitable[_Response]]
    method: str | None = _GET
    """The one that it takes; None for any."""
    is_open: bool = False
    """Whether it takes no token."""


class App:
    """The application.

    All but the health of the server and its page is for those who know the token.
    """

    def __init__(self, endpoints: Endpoints):
        self._endpoints = endpoints
        self.repository, self.limits = endpoints.repository, endpoints.limits
        self._pool = ThreadPoolExecutor(2, "dlrm-json")
        self._deadlines = Deadlines(self.limits.timeout_s)
        self._route = lru_cache(maxsize=256)(self._found)
        page = resources.files("dlrm.serving").joinpath("page.html").read_bytes()
        self._plain: dict[tuple[str, ...], Callable[[], _Response]] = {
            ("",): lambda: _Response(page, _PAGE_HEADERS),
            ("v2",): lambda: _Response.json(SERVER),
            ("v2", "health", "live"): lambda: _Response.truth(True),
            ("v2", "health", "ready"): lambda: _Response.truth(self.repository.ready),
            ("v2", "models", "stats"): lambda: _Response.json(endpoints.statistics(None, None)),
            ("status",): lambda: _Response.json(endpoints.status()),
            ("metrics",): self._metrics,
            ("openapi.json",): lambda: _Response.json(document(self.repository.models())),
        }

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer a request."""
        headers = scope.headers
        request = _Request(scope, protocol, headers, self.limits, self._deadlines.begin())
        try:
            route = self._route(scope.path)
            if not route.is_open:
                self._endpoints.check_token(headers.get("authorization"))
            if scope.method != route.method:
                _check(scope.method, route.method)
            response = await route.answer(request)
        except RefusalError as refusal:
            response = _Response.json({"error": str(refusal)}, refusal.status)
        except asyncio.CancelledError:
            if not self._deadlines.end(request.task):
                raise
            read = request.read
            status = HTTPStatus.GATEWAY_TIMEOUT if read else HTTPStatus.REQUEST_TIMEOUT
            reason = f"the time of {self.limits.timeout_s:g} s is up"
            response = _Response.json({"error": reason}, status)
        except Exception:
            log.exception("%s %s failed", scope.method, scope.path)
            response = _Response.json(
                {"error": "the server has failed; its log says why"},
                HTTPStatus.INTERNAL_SERVER_ERROR,
            )
        finally:
            self._deadlines.end(request.task)
        protocol.response_bytes(response.status, response.headers, response.body)

    def _found(self, path: str) -> _Route:
        """Return what answers at a path."""
        parts = tuple(unquote(part) for part in path.strip("/").split("/"))
        # The page itself says nothing of the models: what it asks for has the token.
        is_open = parts[:2] == ("v2", "health") or parts == ("",)
        if (plain := self._plain.get(parts)) is not None:
            return _Route(_as_answer(plain), is_open=is_open)
        match parts:
            case ("v2", "models", name, "versions", version, *rest):
                return self._of_model(name, version, rest)
            case ("v2", "models", name, *rest):
                return self._of_model(name, None, rest)
            case ("score", *rest) if len(rest) <= 1:
                name = (rest or self.repository.names)[0]
                return _Route(partial(self._score, name=name), _POST)
            case ("v2", "repository", *rest):
                return _Route(partial(self._repository, rest=rest), _POST)
        return _Route(_nothing, None, is_open)

    def _of_model(self, name: str, version: str | None, rest: list[str]) -> _Route:
        if rest == ["infer"]:
            return _Route(partial(self._infer, name=name, version=version), _POST)
        return _Route(partial(self._model, name=name, version=version, rest=rest))

    def _metrics(self) -> _Response:
        counts = ((m.name, m.version, m.statistics) for m in self.repository.models())
        text = prometheus(counts, self._endpoints.shadows())
        return _Response.text(text, "text/plain; version=0.0.4")

    async def _model(
        self, request: _Request, name: str, version: str | None, rest: list[str]
    ) -> _Response:
        """Answer what is asked about a model."""
        if rest == ["ready"]:
            try:
                self.repository.find(name, version)
            except RefusalError:
                return _Response.truth(False)
            return _Response.truth(True)
        model = self.repository.find(name, version)
        if rest == ["columns"]:
            return _Response.json(await self._endpoints.columns(model))
        about: dict[tuple[str, ...], Callable[[], dict[str, Any]]] = {
            (): lambda: model.metadata(self.repository.versions(name)),
            ("config",): lambda: model.config(self.limits),
            ("stats",): lambda: self._endpoints.statistics(name, version),
            ("shadow",): lambda: {"shadows": self._endpoints.shadows(name)},
        }
        if (answer := about.get(tuple(rest))) is None:
            raise RefusalError(HTTPStatus.NOT_FOUND, "a model has no such path; see /openapi.json")
        return _Response.json(answer())

    async def _infer(self, request: _Request, name: str, version: str | None) -> _Response:
        model = self.repository.find(name, version)
        with counted(model):
            parse = partial(
                read_infer,
                header_length=request.headers.get(HEADER_LENGTH),
                model=model.named,
                signature=model.signature,
                limits=self.limits,
            )
            encoded, answer = await request.parsed(parse, self._pool)
            outputs = await self._endpoints.outputs(model, encoded)
            if len(encoded) > _LONG_ROWS:
                headers, body = await self._beside(partial(answer, outputs))
            else:
                headers, body = answer(outputs)
        return _Response(body, headers)

    async def _score(self, request: _Request, name: str) -> _Response:
        model = self.repository.find(name)
        with counted(model):
            parse = partial(parse_rows, limits=self.limits)
            rows, one = await request.parsed(parse, self._pool)
            outputs = await self._endpoints.outputs(model, rows)

            def answer() -> _Response:
                scores = score_values(outputs["scores"], model.predictor.schema)
                key, value = ("score", scores[0]) if one else ("scores", scores)
                return _Response.json({"model": model.name, "version": model.version, key: value})

            return await self._beside(answer) if len(rows) > _LONG_ROWS else answer()

    async def _beside(self, answer: Callable[[], T]) -> T:
        """Return an answer that is written in another thread, so that it holds nobody up."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, answer)

    async def _repository(self, request: _Request, rest: list[str]) -> _Response:
        asked = await request.parsed(lambda body: parse_json(body) if body else {}, self._pool)
        if not isinstance(asked, dict):
            raise bad("the request is no JSON object")
        match rest:
            case ["index"]:
                return _Response.json(self._endpoints.index(asked.get("ready") is True))
            case ["models", name, "load"]:
                # A large model takes its time.
                self._deadlines.end(request.task)
                await self._endpoints.load(name, asked.get("parameters"))
                return _Response.json({})
            case ["models", name, "unload"]:
                self.repository.unload(name)
                return _Response.json({})
        raise RefusalError(HTTPStatus.NOT_FOUND, "the repository has no such path")


def _as_answer(plain: Callable[[], _Response]) -> Callable[[_Request], Awaitable[_Response]]:
    async def answer(_: _Request) -> _Response:
        return plain()

    return answer


async def _nothing(_: _Request) -> _Response:
    raise RefusalError(HTTPStatus.NOT_FOUND, "there is nothing at this path; see /openapi.json")


def _check(asked: str, method: str | None) -> None:
    """Raise a RefusalError where a method is none of a path that takes another one."""
    if method is not None and not (asked == "HEAD" and method == _GET):
        raise RefusalError(HTTPStatus.METHOD_NOT_ALLOWED, f"this path takes {method}")
