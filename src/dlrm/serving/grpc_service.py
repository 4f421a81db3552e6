"""The Open Inference Protocol over gRPC, in the event loop that HTTP is served in.

    RefusalError  400, 415       401              404        409                  413, 429
    gRPC's code   INVALID_       UNAUTHENTICATED  NOT_FOUND  FAILED_PRECONDITION  RESOURCE_
                  ARGUMENT                                                        EXHAUSTED
                  408, 504           503          else
                  DEADLINE_EXCEEDED  UNAVAILABLE  INTERNAL

Clients send the token as the metadata `authorization: Bearer TOKEN`. Messages that are larger than
a body may be are refused by gRPC itself, with RESOURCE_EXHAUSTED. Outputs come as raw contents,
whichever way the inputs came.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any

import grpc
import numpy as np
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from grpc import StatusCode
from numpy.typing import NDArray

from dlrm.errors import ConfigError
from dlrm.serving.endpoints import SERVER, Endpoints, counted
from dlrm.serving.grpc_messages import SERVICE, message
from dlrm.serving.limits import RefusalError, bad
from dlrm.serving.signature import Signature

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext
Handler = Callable[[Any], Awaitable[Any]]
_CODES = {
    HTTPStatus.BAD_REQUEST: StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: StatusCode.UNAUTHENTICATED,
    HTTPStatus.NOT_FOUND: StatusCode.NOT_FOUND,
    HTTPStatus.CONFLICT: StatusCode.FAILED_PRECONDITION,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.TOO_MANY_REQUESTS: StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.REQUEST_TIMEOUT: StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.GATEWAY_TIMEOUT: StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.SERVICE_UNAVAILABLE: StatusCode.UNAVAILABLE,
}
_CONTENTS = {
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    **{"INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents"},
}
"""Datatype -> where its numbers are in typed contents."""
_HEALTH = ("ServerLive", "ServerReady")
_FINAL = "triton_final_response"


class GrpcService:
    """The methods of the protocol, and the socket at which they are called.

    Args:
        endpoints: What the server does.

    """

    def __init__(self, endpoints: Endpoints):
        self._endpoints = endpoints
        self._limits = endpoints.limits
        self._ending = asyncio.Event()
        self._server: Any = None

    async def start(self, host: str, port: int, tls: tuple[bytes, bytes] | None) -> int:
        """Listen, in the event loop that runs.

        Args:
            host: An address of this machine.
            port: 0 for one that is free.
            tls: Key and certificates, PEM; None for none.

        Returns:
            The port.

        Raises:
            ConfigError: The port is taken.

        """
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", self._limits.body_bytes),
                ("grpc.max_send_message_length", -1),
                # Who else listens at the port would get some of the requests.
                ("grpc.so_reuseport", 0),
            ]
        )
        handler = grpc.method_handlers_generic_handler(SERVICE, self._handlers())
        self._server.add_generic_rpc_handlers((handler,))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if tls is None:
                port = self._server.add_insecure_port(address)
            else:
                credentials = grpc.ssl_server_credentials([tls])
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            raise ConfigError(
                f"nothing can listen at {host}, port {port}: give another --grpc-port"
            ) from None
        await self._server.start()
        return port

    async def stop(self) -> None:
        """Take no request any more, and return when those that were taken are answered."""
        self._ending.set()
        await self._server.stop(self._limits.timeout_s)

    def _handlers(self) -> dict[str, Any]:
        unary: dict[str, Handler] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ServerMetadata": self._server_metadata,
            "ModelReady": self._model_ready,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelInfer": self._infer,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._unary(name, handler))
            for name, handler in unary.items()
        }
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        return handlers

    def _unary(self, name: str, handler: Handler) -> Callable[[bytes, Context], Awaitable[bytes]]:
        """Return a method as gRPC calls it, from bytes to bytes, with its errors."""
        request_type = message(f"{name}Request")
        # A large model takes its time.
        timeout_s = None if name == "RepositoryModelLoad" else self._limits.timeout_s

        async def answer(body: bytes, context: Context) -> bytes:
            try:
                if name not in _HEALTH:
                    self._check_token(context)
                async with asyncio.timeout(timeout_s):
                    response = await handler(_parsed(request_type, body))
                return response.SerializeToString()
            except RefusalError as refusal:
                code, reason = _CODES.get(refusal.status, StatusCode.INTERNAL), str(refusal)
            except TimeoutError:
                code, reason = StatusCode.DEADLINE_EXCEEDED, self._late
            except Exception:
                log.exception("%s failed", name)
                code, reason = StatusCode.INTERNAL, "the server has failed; its log says why"
            await context.abort(code, reason)
            raise AssertionError

        return answer

    @property
    def _late(self) -> str:
        return f"the time of {self._limits.timeout_s:g} s is up"

    def _check_token(self, context: Context) -> None:
        metadata = dict(context.invocation_metadata() or ())
        given = metadata.get("authorization")
        self._endpoints.check_token(given if isinstance(given, str) else None)

    async def _server_live(self, _: Any) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def _server_ready(self, _: Any) -> Any:
        return message("ServerReadyResponse")(ready=self._endpoints.repository.ready)

    async def _server_metadata(self, _: Any) -> Any:
        return message("ServerMetadataResponse")(**SERVER)

    async def _model_ready(self, request: Any) -> Any:
        try:
            self._endpoints.repository.find(request.name, request.version or None)
        except RefusalError:
            return message("ModelReadyResponse")(ready=False)
        return message("ModelReadyResponse")(ready=True)

    async def _model_metadata(self, request: Any) -> Any:
        repository = self._endpoints.repository
        model = repository.find(request.name, request.version or None)
        return _filled("ModelMetadataResponse", model.metadata(repository.versions(request.name)))

    async def _model_config(self, request: Any) -> Any:
        model = self._endpoints.repository.find(request.name, request.version or None)
        return _filled("ModelConfigResponse", {"config": model.config(self._limits)})

    async def _model_statistics(self, request: Any) -> Any:
        counts = self._endpoints.statistics(request.name or None, request.version or None)
        return _filled("ModelStatisticsResponse", counts)

    async def _index(self, request: Any) -> Any:
        return _filled("RepositoryIndexResponse", {"models": self._endpoints.index(request.ready)})

    async def _load(self, request: Any) -> Any:
        await self._endpoints.load(request.model_name, request.parameters)
        return message("RepositoryModelLoadResponse")()

    async def _unload(self, request: Any) -> Any:
        self._endpoints.repository.unload(request.model_name)
        return message("RepositoryModelUnloadResponse")()

    async def _infer(self, request: Any) -> Any:
        model = self._endpoints.repository.find(request.model_name, request.model_version or None)
        with counted(model):
            tensors = _tensors(request, model.signature, self._limits.body_bytes)
            wanted = _outputs(request, model.signature)
            outputs = await self._endpoints.infer(model, tensors)
        response = _RESPONSE(model_name=model.name, model_version=model.version, id=request.id)
        for name in wanted:
            values = outputs[name]
            response.outputs.add(name=name, datatype="FP32", shape=values.shape)
            response.raw_output_contents.append(np.ascontiguousarray(values, "<f4").tobytes())
        return response

    async def _stream(self, _: Any, context: Context) -> AsyncIterator[bytes]:
        """Answer the requests of a stream one by one; one that is refused does not end it."""
        try:
            self._check_token(context)
        except RefusalError as refusal:
            await context.abort(_CODES[refusal.status], str(refusal))
        while (body := await self._next(context)) is not None:
            answer = _STREAMED()
            try:
                async with asyncio.timeout(self._limits.timeout_s):
                    request = _parsed(_REQUEST, body)
                    answer.infer_response.id = request.id
                    answer.infer_response.MergeFrom(await self._infer(request))
            except RefusalError as refusal:
                answer.error_message = str(refusal)
            except TimeoutError:
                answer.error_message = self._late
            except Exception:
                log.exception("ModelStreamInfer failed")
                answer.error_message = "the server has failed; its log says why"
            answer.infer_response.parameters[_FINAL].bool_param = True
            yield answer.SerializeToString()

    async def _next(self, context: Context) -> bytes | None:
        """Return the next request of a stream; None at its end, and at the server's."""
        reading = asyncio.ensure_future(context.read())
        ending = asyncio.ensure_future(self._ending.wait())
        done, waiting = await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        # At its end a stream reads `grpc.aio.EOF`, which is no bytes.
        body = reading.result() if reading in done else None
        return body if isinstance(body, bytes) else None


_REQUEST, _RESPONSE = message("ModelInferRequest"), message("ModelInferResponse")
_STREAMED = message("ModelStreamInferResponse")


def _parsed(request_type: type[Any], body: bytes) -> Any:
    try:
        return request_type.FromString(body)
    except DecodeError:
        raise bad(f"the message is no {request_type.DESCRIPTOR.name}") from None


def _filled(name: str, values: dict[str, Any]) -> Any:
    """Return a message with what HTTP has as JSON, but for what the message has no field for."""
    return ParseDict(values, message(name)(), ignore_unknown_fields=True)


def _tensors(request: Any, signature: Signature, most: int) -> dict[str, NDArray[Any]]:
    """Return the inputs of a request by name, in their shapes.

    Raises:
        RefusalError: They are none of the model; says what is wrong, and where.

    """
    raw, tensors = request.raw_input_contents, {}
    if raw and len(raw) != len(request.inputs):
        raise bad(f"{len(raw)} raw contents stand beside {len(request.inputs)} inputs")
    for at, tensor in enumerate(request.inputs):
        name, shape = tensor.name, list(tensor.shape)
        if name in tensors:
            raise bad(f'the input "{name}" is there twice')
        count, dtype = signature.numbers(name, tensor.datatype, shape, most)
        if "shared_memory_region" in tensor.parameters:
            raise bad(f"{name}: shared memory is not read")
        if raw:
            if len(raw[at]) != count * dtype.itemsize:
                raise bad(
                    f"{name}: {len(raw[at])} bytes, expected {count * dtype.itemsize}, as shape "
                    "and datatype say"
                )
            flat = np.frombuffer(raw[at], dtype)
        else:
            numbers = getattr(tensor.contents, _CONTENTS[tensor.datatype])
            if len(numbers) != count:
                raise bad(f"{name}: {len(numbers)} numbers, the shape says {count}")
            try:
                flat = np.array(numbers, dtype)
            except OverflowError:
                raise bad(f"{name}: holds a number that is too large") from None
        tensors[name] = flat.reshape(shape)
    return tensors


def _outputs(request: Any, signature: Signature) -> list[str]:
    """Return which outputs are wanted; all where none is named."""
    known = signature.outputs
    for output in request.outputs:
        if output.name not in known:
            raise bad(f'unknown output "{output.name}"; the model gives {", ".join(known)}')
        if "classification" in output.parameters or "shared_memory_region" in output.parameters:
            raise bad(f"{output.name}: neither classifications nor shared memory are given")
    return [output.name for output in request.outputs] or list(known)
