"""The routes of the server: what is asked where, and what comes back.

    GET  / (a page for people), /status (what it shows), /metrics, /openapi.json
    GET  /v2, /v2/health/live, /v2/health/ready, /v2/models/stats, /v2/trace/setting, /v2/logging
    GET  /v2/models/NAME[/versions/V][/ready | /config | /stats | /columns], /v2/models/NAME/shadow
    any  /v2/systemsharedmemory/..., /v2/cudasharedmemory/... (there is none)
    POST /v2/models/NAME[/versions/V]/infer, /score[/NAME]
    POST /v2/repository/index, /v2/repository/models/NAME/load | unload

It is an application of RSGI, granian's interface: `await app.__rsgi__(scope, protocol)`. Errors are
JSON, `{"error": reason}`.
"""

import asyncio
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
from dlrm.serving.endpoints import LOG, NO_TRACES, SERVER, Endpoints, counted
from dlrm.serving.exchange import Request, Response
from dlrm.serving.limits import RefusalError, bad
from dlrm.serving.metrics import prometheus
from dlrm.serving.openapi import document
from dlrm.serving.protocol import HEADER_LENGTH, parse_json, read_infer
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
_GET, _POST = "GET", "POST"
_LONG_ROWS = 1024
"""From which on an answer is written beside the event loop."""


@dataclass(frozen=True, slots=True)
class _Route:
    """What answers the requests at a path."""

    answer: Callable[[Request], Awaitable[Response]]
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
        self._plain: dict[tuple[str, ...], Callable[[], Response]] = {
            ("",): lambda: Response(page, _PAGE_HEADERS),
            ("v2",): lambda: Response.json(SERVER),
            ("v2", "health", "live"): lambda: Response.truth(True),
            ("v2", "health", "ready"): lambda: Response.truth(self.repository.ready),
            ("v2", "models", "stats"): lambda: Response.json(endpoints.statistics(None, None)),
            ("v2", "trace", "setting"): lambda: Response.json(NO_TRACES),
            ("v2", "logging"): lambda: Response.json(LOG),
            ("status",): lambda: Response.json(endpoints.status()),
            ("metrics",): self._metrics,
            ("openapi.json",): lambda: Response.json(document(self.repository.models())),
        }

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer a request."""
        headers = scope.headers
        request = Request(scope, protocol, headers, self.limits, self._deadlines.begin())
        try:
            route = self._route(scope.path)
            if not route.is_open:
                self._endpoints.check_token(headers.get("authorization"))
            if scope.method != route.method:
                _check(scope.method, route.method)
            response = await route.answer(request)
        except RefusalError as refusal:
            response = Response.json({"error": str(refusal)}, refusal.status)
        except asyncio.CancelledError:
            if not self._deadlines.end(request.task):
                raise
            read = request.read
            status = HTTPStatus.GATEWAY_TIMEOUT if read else HTTPStatus.REQUEST_TIMEOUT
            reason = f"the time of {self.limits.timeout_s:g} s is up"
            response = Response.json({"error": reason}, status)
        except Exception:
            log.exception("%s %s failed", scope.method, scope.path)
            response = Response.json(
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
        answer, method = _nothing, None
        match parts:
            case _ if parts in self._plain:
                answer, method = _as_answer(self._plain[parts]), _GET
            case ("v2", "models", name, *rest):
                version = None
                if rest[:1] == ["versions"] and len(rest) > 1:
                    version, rest = rest[1], rest[2:]
                if rest == ["infer"]:
                    answer, method = partial(self._infer, name=name, version=version), _POST
                else:
                    answer = partial(self._model, name=name, version=version, rest=rest)
                    method = _GET
            case ("score", *rest) if len(rest) <= 1:
                name = (rest or self.repository.names)[0]
                answer, method = partial(self._score, name=name), _POST
            case ("v2", "repository", *rest):
                answer, method = partial(self._repository, rest=rest), _POST
            case ("v2", "systemsharedmemory" | "cudasharedmemory", *rest):
                answer = partial(_shared_memory, rest=rest)
        return _Route(answer, method, is_open)

    def _metrics(self) -> Response:
        counts = ((m.name, m.version, m.statistics) for m in self.repository.models())
        text = prometheus(counts, self._endpoints.shadows())
        return Response.text(text, "text/plain; version=0.0.4")

    async def _model(
        self, request: Request, name: str, version: str | None, rest: list[str]
    ) -> Response:
        """Answer what is asked about a model."""
        if rest == ["ready"]:
            try:
                self.repository.find(name, version)
            except RefusalError:
                return Response.truth(False)
            return Response.truth(True)
        model = self.repository.find(name, version)
        if rest == ["columns"]:
            return Response.json(await self._endpoints.columns(model))
        about: dict[tuple[str, ...], Callable[[], dict[str, Any]]] = {
            (): lambda: model.metadata(self.repository.versions(name)),
            ("config",): lambda: model.config(self.limits),
            ("stats",): lambda: self._endpoints.statistics(name, version),
            ("shadow",): lambda: {"shadows": self._endpoints.shadows(name)},
            ("trace", "setting"): lambda: NO_TRACES,
        }
        if (answer := about.get(tuple(rest))) is None:
            raise RefusalError(HTTPStatus.NOT_FOUND, "a model has no such path; see /openapi.json")
        return Response.json(answer())

    async def _infer(self, request: Request, name: str, version: str | None) -> Response:
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
        return Response(body, headers)

    async def _score(self, request: Request, name: str) -> Response:
        model = self.repository.find(name)
        with counted(model):
            parse = partial(parse_rows, limits=self.limits)
            rows, one = await request.parsed(parse, self._pool)
            outputs = await self._endpoints.outputs(model, rows)

            def answer() -> Response:
                scores = score_values(outputs["scores"], model.predictor.schema)
                key, value = ("score", scores[0]) if one else ("scores", scores)
                return Response.json({"model": model.name, "version": model.version, key: value})

            return await self._beside(answer) if len(rows) > _LONG_ROWS else answer()

    async def _beside(self, answer: Callable[[], T]) -> T:
        """Return an answer that is written in another thread, so that it holds nobody up."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, answer)

    async def _repository(self, request: Request, rest: list[str]) -> Response:
        asked = await request.parsed(lambda body: parse_json(body) if body else {}, self._pool)
        if not isinstance(asked, dict):
            raise bad("the request is no JSON object")
        match rest:
            case ["index"]:
                return Response.json(self._endpoints.index(asked.get("ready") is True))
            case ["models", name, "load"]:
                # A large model takes its time.
                self._deadlines.end(request.task)
                await self._endpoints.load(name, asked.get("parameters"))
                return Response.json({})
            case ["models", name, "unload"]:
                self.repository.unload(name)
                return Response.json({})
        raise RefusalError(HTTPStatus.NOT_FOUND, "the repository has no such path")


def _as_answer(plain: Callable[[], Response]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return plain()

    return answer


async def _nothing(_: Request) -> Response:
    raise RefusalError(HTTPStatus.NOT_FOUND, "there is nothing at this path; see /openapi.json")


async def _shared_memory(_: Request, rest: list[str]) -> Response:
    """Answer what is asked of shared memory, of which no region is ever registered."""
    match rest:
        case ["status"]:
            return Response.json([])
        case ["unregister"] | ["region", _, "unregister"]:
            return Response.json({})
    raise bad("shared memory is not read: tensors are sent in the body")


def _check(asked: str, method: str | None) -> None:
    """Raise a RefusalError where a method is none of a path that takes another one."""
    if method is not None and not (asked == "HEAD" and method == _GET):
        raise RefusalError(HTTPStatus.METHOD_NOT_ALLOWED, f"this path takes {method}")
