"""What a server does for its clients, the same whatever they speak: HTTP and gRPC call this."""

import asyncio
import hmac
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from numpy.typing import NDArray

from dlrm import __version__
from dlrm.data.encoded import Encoded
from dlrm.errors import DlrmError
from dlrm.serving.batcher import Batcher, Outputs
from dlrm.serving.limits import Limits, RefusalError, bad
from dlrm.serving.model import Model
from dlrm.serving.repository import Repository
from dlrm.serving.rows import Row
from dlrm.serving.shadow import Shadow

log = logging.getLogger(__name__)

SERVER = {
    "name": "dlrm",
    "version": __version__,
    "extensions": [
        "binary_tensor_data",
        "model_configuration",
        "model_repository",
        "model_repository(unload_dependents)",
        "statistics",
    ],
}
"""Metadata of the server."""
NO_TRACES = {"trace_level": ["OFF"]}
"""Settings of traces, as Triton's extension has them."""
LOG = {
    "log_file": "",
    "log_info": False,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
"""Settings of the log, likewise."""


class Endpoints:
    """The models of a server, as its front ends ask them.

    Args:
        repository: The models.
        batcher: What asks them.
        limits: Of a request.
        token: What clients must know; None for nothing.
        shadows: The shadows of each model that has some.

    """

    def __init__(
        self,
        repository: Repository,
        batcher: Batcher,
        limits: Limits,
        token: str | None = None,
        shadows: Mapping[str, Sequence[Shadow]] | None = None,
    ):
        self.repository, self.limits = repository, limits
        self._batcher, self._shadows = batcher, shadows or {}
        self._since = time.monotonic()
        self._expected = None if token is None else f"Bearer {token}".encode()

    def check_token(self, authorization: str | None) -> None:
        """Raise a RefusalError where what a client says for its authorization is not the token."""
        if self._expected is not None and not hmac.compare_digest(
            (authorization or "").encode(), self._expected
        ):
            raise RefusalError(HTTPStatus.UNAUTHORIZED, "Authorization: Bearer TOKEN is missing")

    async def outputs(self, model: Model, samples: Encoded | list[Row]) -> Outputs:
        """Return what a model says of a request's rows; see `Batcher.outputs`."""
        shadows = self._shadows.get(model.name)
        if not shadows:
            return await self._batcher.outputs(model, samples)
        began = time.perf_counter_ns()
        outputs = await self._batcher.outputs(model, samples)
        for shadow in shadows:
            elapsed_ns = time.perf_counter_ns() - began
            # After who waits for the answer has had it.
            asyncio.get_running_loop().call_soon(
                shadow.offer, model, samples, outputs["scores"], elapsed_ns
            )
        return outputs

    async def infer(self, model: Model, tensors: Mapping[str, NDArray[Any]]) -> Outputs:
        """Return what a model says of tensors that are rows; errors as of `Signature.encoded`."""
        return await self.outputs(model, model.signature.encoded(tensors, self.limits))

    async def load(self, name: str, parameters: object) -> None:
        """Take the newest checkpoint of a model.

        Raises:
            RefusalError: There is no such model, or it cannot be loaded.

        """
        if parameters:
            raise bad("a model is loaded from its run alone: there are no parameters")
        load = partial(self.repository.load, name)
        try:
            await asyncio.get_running_loop().run_in_executor(None, load)
        except RefusalError:
            raise
        except (DlrmError, OSError):
            log.exception("%s cannot be loaded", name)
            problem = f'"{name}" cannot be loaded, what was loaded stays; the log says why'
            raise RefusalError(HTTPStatus.CONFLICT, problem) from None

    def index(self, ready: bool) -> list[dict[str, Any]]:
        """Return what there is, or of it what is loaded."""
        return [row for row in self.repository.index() if not ready or row["state"] == "READY"]

    def statistics(self, name: str | None, version: str | None) -> dict[str, Any]:
        """Return the statistics of a model, of all of its versions, or of all models."""
        if name is None:
            models = self.repository.models()
        else:
            self.repository.find(name, version)
            versions = [version] if version else self.repository.versions(name)
            models = [self.repository.find(name, v) for v in versions]
        rows = [
            {"name": model.name, "version": model.version, **model.statistics.to_dict()}
            for model in models
        ]
        return {"model_stats": rows}

    def shadows(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return how the shadows of a model, or all, compare with it; see `Shadow.to_dict`.

        Raises:
            RefusalError: There is no such model.

        """
        if name is None:
            return [shadow.to_dict() for pairs in self._shadows.values() for shadow in pairs]
        self.repository.find(name)
        return [shadow.to_dict() for shadow in self._shadows.get(name, ())]

    async def columns(self, model: Model) -> dict[str, Any]:
        """Return the labels of a model, and its columns with values that are usual in them."""
        # Of a large vocabulary this takes a while, once.
        described = await asyncio.to_thread(lambda: model.columns)
        return {"labels": list(model.predictor.schema.labels), "columns": described}

    def status(self) -> dict[str, Any]:
        """Return what is loaded, how busy it is and how fast: what the page shows."""
        return {
            "version": __version__,
            "ready": self.repository.ready,
            "uptime_s": round(time.monotonic() - self._since, 3),
            "queue": {"waiting": self._batcher.waiting, "limit": self.limits.queue},
            "models": [
                {
                    "name": model.name,
                    "version": model.version,
                    "step": model.step,
                    "runtime": model.back_end.runtime,
                    "tables": model.back_end.tables,
                    "device": str(model.predictor.device),
                    **model.statistics.summary(),
                }
                for model in self.repository.models()
            ],
            "shadows": self.shadows(),
        }


class counted:  # noqa: N801 - it is used as a function
    """Count a request that is answered within a block, and one that is not by its reason."""

    __slots__ = ("_began", "_statistics")

    def __init__(self, model: Model):
        self._statistics = model.statistics
        self._began = time.perf_counter_ns()

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Count the outcome."""
        if error is None:
            self._statistics.answered(time.perf_counter_ns() - self._began)
            return
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        if isinstance(error, RefusalError):
            status = error.status
        elif isinstance(error, asyncio.CancelledError):
            status = HTTPStatus.GATEWAY_TIMEOUT
        self._statistics.failures[status.name] += 1
