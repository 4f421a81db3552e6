"""Shadow traffic: a second model gets the requests that a first one has answered.

    answer of A is out ──> half a queue at most ──> a thread of its own: B scores ──> comparison

Nobody waits for the shadow: what is too much for it is dropped, and what it raises is counted. Its
thread has the priority of all others: one that is interrupted for them while it holds the
interpreter's lock would hold them up. Raw rows are encoded by the shadow's own features. Rows
that came encoded are compared where both models have the same features; to another model their ids
mean other values.
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.data.encoded import Encoded
from dlrm.errors import ConfigError
from dlrm.serving.batcher import scored
from dlrm.serving.comparison import Comparison
from dlrm.serving.limits import Limits, RefusalError
from dlrm.serving.model import Model
from dlrm.serving.repository import Repository
from dlrm.serving.rows import Row

log = logging.getLogger(__name__)

_LAST_S = 5.0
"""Seconds that a shadow may take for its last batch."""


@dataclass(frozen=True, eq=False, slots=True)
class _Answered:
    """A request that the first model has answered."""

    model: Model
    samples: Encoded | list[Row]
    scores: NDArray[np.float32]
    elapsed_ns: int
    since_ns: int = field(default_factory=time.perf_counter_ns)


class Shadow:
    """A model that gets the requests of another one.

    Args:
        primary: Name of the model that answers.
        name: Of the shadow.
        repository: Has both.
        limits: Of the server; half of its queue may wait for the shadow.

    """

    def __init__(self, primary: str, name: str, repository: Repository, limits: Limits):
        self.primary, self.name = primary, name
        self._repository, self._batch = repository, limits.batch
        self._most = max(1, limits.queue // 2)
        self._comparison = Comparison()
        self._versions: tuple[str, str] | None = None
        self._same = False
        """Whether both models have the same features."""
        # It takes no lock that the event loop could wait for.
        self._queue: SimpleQueue[_Answered | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=f"dlrm-shadow-{name}", daemon=True)
        self._thread.start()

    def offer(
        self,
        model: Model,
        samples: Encoded | list[Row],
        scores: NDArray[np.float32],
        elapsed_ns: int,
    ) -> None:
        """Take a request that was answered, or drop it where too many wait; never waits itself.

        Args:
            model: That answered.
            samples: The rows of the request.
            scores: (n, K) of the answer.
            elapsed_ns: From the request's place in the queue to its answer.

        """
        if self._queue.qsize() >= self._most:
            self._comparison.dropped += 1
            return
        self._queue.put(_Answered(model, samples, scores, elapsed_ns))

    def close(self) -> None:
        """End the thread; what waits for it is dropped, and it holds up no end of the server."""
        self._closed = True
        self._queue.put(None)
        self._thread.join(_LAST_S)

    def to_dict(self) -> dict[str, Any]:
        """Return both models' names and versions, and how their scores compare since both serve."""
        version, shadow_version = self._versions or (None, None)
        return {
            "model": self.primary,
            "version": version,
            "shadow": self.name,
            "shadow_version": shadow_version,
            "waiting": self._queue.qsize(),
            **self._comparison.to_dict(),
        }

    def _work(self) -> None:
        while requests := self._take():
            for model in dict.fromkeys(request.model for request in requests):
                group = [request for request in requests if request.model is model]
                try:
                    self._compare(model, group)
                except BaseException:
                    # Polars' panics are no Exceptions; the thread must live on.
                    log.exception("the shadow %s failed", self.name)
                    self._comparison.failures["error"] += len(group)

    def _take(self) -> list[_Answered]:
        """Return the requests of the next batch; none at the end."""
        requests: list[_Answered] = []
        rows = 0
        while not requests or (rows < self._batch and not self._queue.empty()):
            request = self._queue.get()
            if request is None or self._closed:
                return []
            requests.append(request)
            rows += len(request.samples)
        return requests

    def _compare(self, model: Model, requests: Sequence[_Answered]) -> None:
        """Let the shadow score requests that a version of the first model has answered."""
        failures = self._comparison.failures
        try:
            shadow = self._repository.find(self.name)
        except RefusalError:
            failures["not loaded"] += len(requests)
            return
        if self._versions != (model.version, shadow.version):
            self._versions = (model.version, shadow.version)
            self._same = _same_features(model, shadow)
            self._comparison = Comparison()
            failures = self._comparison.failures
        if model.predictor.schema.labels != shadow.predictor.schema.labels:
            failures["other labels"] += len(requests)
            return
        fitting = [r for r in requests if self._same or not isinstance(r.samples, Encoded)]
        if len(fitting) < len(requests):
            failures["other features"] += len(requests) - len(fitting)
        for request, result in scored(shadow, fitting).results:
            elapsed_ns = time.perf_counter_ns() - request.since_ns
            if isinstance(result, RefusalError):
                failures["refused"] += 1
            elif isinstance(result, Exception):
                log.error("the shadow %s failed", self.name, exc_info=result)
                failures["error"] += 1
            elif not (np.isfinite(request.scores).all() and np.isfinite(result["scores"]).all()):
                failures["no finite score"] += 1
            else:
                scores = request.scores, result["scores"]
                self._comparison.add(*scores, request.elapsed_ns, elapsed_ns)


def pairs(words: Sequence[str], repository: Repository, limits: Limits) -> dict[str, list[Shadow]]:
    """Return the shadows of each model that has some, from words `MODEL=SHADOW`.

    Raises:
        ConfigError: A word is none, names no model of the repository, or is there twice.

    """
    wanted: list[tuple[str, str]] = []
    for word in words:
        primary, _, name = word.partition("=")
        for model in (primary, name):
            if model not in repository.names:
                there = ", ".join(repository.names)
                raise ConfigError(
                    f'the shadow "{word}" names no model "{model}": give MODEL=SHADOW of {there}'
                )
        if primary == name or (primary, name) in wanted:
            raise ConfigError(f'the shadow "{word}" is of the model itself, or there twice')
        wanted.append((primary, name))
    shadows: dict[str, list[Shadow]] = {}
    for primary, name in wanted:
        shadows.setdefault(primary, []).append(Shadow(primary, name, repository, limits))
    return shadows


def _same_features(model: Model, shadow: Model) -> bool:
    """Whether ids mean the same to both models."""
    one, other = model.predictor.features, shadow.predictor.features
    return one.to_dict() == other.to_dict() and all(
        mine.frame.equals(theirs.frame)
        for mine, theirs in zip(one.tables, other.tables, strict=True)
    )
