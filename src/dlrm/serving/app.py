"""The routes of the server: what is asked where, and what comes back.

    GET  / (a page for people), /metrics, /openapi.json
    GET  /v2, /v2/health/live, /v2/health/ready, /v2/models/stats
    GET  /v2/models/NAME[/versions/V][/ready | /config | /stats]
    POST /v2/models/NAME[/versions/V]/infer, /score[/NAME]
    POST /v2/repository/index, /v2/repository/models/NAME/load | unload

It is an application of RSGI, granian's interface: `await app.__rsgi__(scope, protocol)`. Errors are
JSON, `{"error": reason}`.
"""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import unquote

from dlrm import __version__
from dlrm.errors import DlrmError
from dlrm.serving.batcher import Batcher
from dlrm.serving.limits import Limits, RefusalError, bad
from dlrm.serving.metrics import prometheus
from dlrm.serving.model import Model
from dlrm.serving.openapi import document
from dlrm.serving.protocol import (
    HEADER_LENGTH,
    decompressed,
    encode_infer,
    parse_infer,
    parse_json,
)
from dlrm.serving.repository import Repository
from dlrm.serving.rows import encode_rows, parse_rows, score_values

log = logging.getLogger(__name__)

EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "statistics",
)
_PAGE_HEADERS = [
    ("content-type", "text/html; charset=utf-8"),
    (
        "content-security-policy",
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
        "connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'",
    ),
]
_GET, _POST = "GET", "POST"


@dataclass(frozen=True, slots=True)
class _Response:
    body: bytes
    headers: list[tuple[str, str]]
    status: HTTPStatus = HTTPStatus.OK

    @classmethod
    def json(cls, value: Any, status: HTTPStatus = HTTPStatus.OK) -> "_Response":
        text = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
        return cls(text, [("content-type", "application/json")], status)

    @classmethod
    def text(cls, text: str, kind: str) -> "_Response":
        return cls(text.encode(), [("content-type", kind)])

    @classmethod
    def truth(cls, yes: bool) -> "_Response":
        """An empty answer, whose status is the answer."""
        return cls(b"", [], HTTPStatus.OK if yes else HTTPStatus.SERVICE_UNAVAILABLE)


@dataclass(slots=True)
class _Request:
    scope: Any
    protocol: Any
    limits: Limits
    timer: asyncio.Timeout
    read: bool = False
    """Whether all of the body is here."""

    async def body(self) -> bytes:
        """Return the body; see `Limits.check_body`."""
        headers = self.scope.headers
        length = headers.get("content-length") or ""
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
        return decompressed(body, (headers.get("content-encoding") or "").lower(), self.limits)


class App:
    """The application.

    Args:
        repository: Its models.
        batcher: What asks them.
        limits: Of a request.
        token: What clients must know, in the header `Authorization: Bearer TOKEN`, for all but the
            health of the server and its page; None for nothing.

    """

    def __init__(
        self, repository: Repository, batcher: Batcher, limits: Limits, token: str | None = None
    ):
        self.repository, self.limits = repository, limits
        self._batcher = batcher
        self._expected = None if token is None else f"Bearer {token}".encode()
        server = {"name": "dlrm", "version": __version__, "extensions": EXTENSIONS}
        page = resources.files("dlrm.serving").joinpath("page.html").read_bytes()
        self._plain: dict[tuple[str, ...], Callable[[], _Response]] = {
            ("",): lambda: _Response(page, _PAGE_HEADERS),
            ("v2",): lambda: _Response.json(server),
            ("v2", "health", "live"): lambda: _Response.truth(True),
            ("v2", "health", "ready"): lambda: _Response.truth(repository.ready),
            ("v2", "models", "stats"): lambda: self._statistics(repository.models()),
            ("metrics",): self._metrics,
            ("openapi.json",): lambda: _Response.json(document(repository.models())),
        }

    async def __rsgi__(self, scope: Any, protocol: Any) -> None:
        """Answer a request."""
        request = None
        try:
            async with asyncio.timeout(self.limits.timeout_s) as timer:
                request = _Request(scope, protocol, self.limits, timer)
                response = await self._respond(request)
        except RefusalError as refusal:
            response = _Response.json({"error": str(refusal)}, refusal.status)
        except TimeoutError:
            late = request is not None and not request.read
            status = HTTPStatus.REQUEST_TIMEOUT if late else HTTPStatus.GATEWAY_TIMEOUT
            reason = f"the time of {self.limits.timeout_s:g} s is up"
            response = _Response.json({"error": reason}, status)
        except Exception:
            log.exception("%s %s failed", scope.method, scope.path)
            response = _Response.json(
                {"error": "the server has failed; its log says why"},
                HTTPStatus.INTERNAL_SERVER_ERROR,
            )
        protocol.response_bytes(response.status.value, response.headers, response.body)

    async def _respond(self, request: _Request) -> _Response:
        parts = [unquote(part) for part in request.scope.path.strip("/").split("/")]
        # The page itself says nothing of the models: what it asks for has the token.
        if parts[:2] != ["v2", "health"] and parts != [""]:
            self._check_token(request)
        if (plain := self._plain.get(tuple(parts))) is not None:
            self._check(request, _GET)
            return plain()
        match parts:
            case ["v2", "models", name, "versions", version, *rest]:
                return await self._model(request, name, version, rest)
            case ["v2", "models", name, *rest]:
                return await self._model(request, name, None, rest)
            case ["score", *rest] if len(rest) <= 1:
                return await self._score(request, (rest or self.repository.names)[0])
            case ["v2", "repository", *rest]:
                return await self._repository(request, rest)
        raise RefusalError(HTTPStatus.NOT_FOUND, "there is nothing at this path; see /openapi.json")

    def _metrics(self) -> _Response:
        counts = ((m.name, m.version, m.statistics) for m in self.repository.models())
        return _Response.text(prometheus(counts), "text/plain; version=0.0.4")

    def _check(self, request: _Request, method: str) -> None:
        asked = request.scope.method
        if asked != method and not (asked == "HEAD" and method == _GET):
            raise RefusalError(HTTPStatus.METHOD_NOT_ALLOWED, f"this path takes {method}")

    def _check_token(self, request: _Request) -> None:
        if self._expected is None:
            return
        given = (request.scope.headers.get("authorization") or "").encode()
        if not hmac.compare_digest(given, self._expected):
            raise RefusalError(HTTPStatus.UNAUTHORIZED, "Authorization: Bearer TOKEN is missing")

    async def _model(
        self, request: _Request, name: str, version: str | None, rest: list[str]
    ) -> _Response:
        """Answer what is asked about, or of, a model."""
        if rest == ["infer"]:
            return await self._infer(request, name, version)
        self._check(request, _GET)
        if rest == ["ready"]:
            try:
                self.repository.find(name, version)
            except RefusalError:
                return _Response.truth(False)
            return _Response.truth(True)
        model = self.repository.find(name, version)
        match rest:
            case []:
                return _Response.json(model.metadata(self.repository.versions(name)))
            case ["config"]:
                return _Response.json(model.config(self.limits))
            case ["stats"]:
                versions = [version] if version else self.repository.versions(name)
                return self._statistics([self.repository.find(name, v) for v in versions])
        raise RefusalError(HTTPStatus.NOT_FOUND, "a model has no such path; see /openapi.json")

    def _statistics(self, models: list[Model]) -> _Response:
        rows = [
            {"name": model.name, "version": model.version, **model.statistics.to_dict()}
            for model in models
        ]
        return _Response.json({"model_stats": rows})

    async def _infer(self, request: _Request, name: str, version: str | None) -> _Response:
        self._check(request, _POST)
        model = self.repository.find(name, version)
        began = time.perf_counter_ns()
        with _counted(model):
            body = await request.body()
            length = request.scope.headers.get(HEADER_LENGTH)
            asked = parse_infer(body, length, model.signature)
            encoded = model.signature.encoded(asked.tensors, self.limits)
            batch = partial(model.predictor.batch, encoded)
            outputs = await self._batcher.outputs(model, len(encoded), batch)
        head: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
        if asked.id:
            head["id"] = asked.id
        headers, text = encode_infer(head, outputs, asked.outputs)
        model.statistics.answered(time.perf_counter_ns() - began)
        return _Response(text, headers)

    async def _score(self, request: _Request, name: str) -> _Response:
        self._check(request, _POST)
        model = self.repository.find(name)
        began = time.perf_counter_ns()
        with _counted(model):
            rows, one = parse_rows(await request.body(), self.limits)
            batch = partial(encode_rows, rows, model.predictor)
            outputs = await self._batcher.outputs(model, len(rows), batch)
        scores = score_values(outputs["scores"], model.predictor.schema)
        model.statistics.answered(time.perf_counter_ns() - began)
        answer = {"score": scores[0]} if one else {"scores": scores}
        return _Response.json({"model": model.name, "version": model.version, **answer})

    async def _repository(self, request: _Request, rest: list[str]) -> _Response:
        self._check(request, _POST)
        body = await request.body()
        asked = parse_json(body) if body else {}
        if not isinstance(asked, dict):
            raise bad("the request is no JSON object")
        match rest:
            case ["index"]:
                ready = asked.get("ready") is True
                rows = self.repository.index()
                return _Response.json([r for r in rows if not ready or r["state"] == "READY"])
            case ["models", name, "load"]:
                if asked.get("parameters"):
                    raise bad("a model is loaded from its run alone: there are no parameters")
                # A large model takes its time.
                request.timer.reschedule(None)
                load = partial(self.repository.load, name)
                try:
                    await asyncio.get_running_loop().run_in_executor(None, load)
                except RefusalError:
                    raise
                except (DlrmError, OSError):
                    log.exception("%s cannot be loaded", name)
                    problem = f'"{name}" cannot be loaded, what was loaded stays; the log says why'
                    raise RefusalError(HTTPStatus.CONFLICT, problem) from None
                return _Response.json({})
            case ["models", name, "unload"]:
                self.repository.unload(name)
                return _Response.json({})
        raise RefusalError(HTTPStatus.NOT_FOUND, "the repository has no such path")


class _counted:  # noqa: N801 - reads as a function
    """Count what is refused within, by its reason."""

    def __init__(self, model: Model):
        self._failures = model.statistics.failures

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, RefusalError):
            self._failures[error.status.name] += 1
        elif isinstance(error, asyncio.CancelledError):
            self._failures[HTTPStatus.GATEWAY_TIMEOUT.name] += 1
        elif error is not None:
            self._failures[HTTPStatus.INTERNAL_SERVER_ERROR.name] += 1
