"""Requests that wait share a batch: one thread takes all that are there and asks the model once.

    outputs ──queue──> take (greedy, or after a delay) ──> one batch a model ──> logits ──> futures

Raw rows are encoded in that thread, too, those of all requests at once. What one request sends
changes no other's answer: what fails for all is done again request by request, so that an error
goes to who caused it.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dlrm.data.encoded import Encoded, join
from dlrm.errors import DlrmError
from dlrm.metrics import sigmoid
from dlrm.serving.limits import Limits, RefusalError, bad
from dlrm.serving.model import Model
from dlrm.serving.rows import Row, encode_together
from dlrm.serving.signature import check_finite

log = logging.getLogger(__name__)

Outputs = dict[str, NDArray[np.float32]]
"""`logits` and `scores`, (B, K) each."""


@dataclass(eq=False, slots=True)
class _Job:
    """A request in the queue."""

    model: Model
    samples: Encoded | list[Row]
    future: "asyncio.Future[Outputs]"
    since_ns: int = field(default_factory=time.perf_counter_ns)


class Batcher:
    """The queue of a server, and the thread that works it off."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._queue: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = self._waits = False
        """`_waits`: whether the thread wants to be told of what comes."""
        self._thread = threading.Thread(target=self._work, name="dlrm-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    async def outputs(self, model: Model, samples: Encoded | list[Row]) -> Outputs:
        """Return what a model says of a request's rows.

        Args:
            model: Which.
            samples: The rows, one at least: encoded, or raw.

        Raises:
            RefusalError: The queue is full, the server is about to stop, or the rows are wrong.

        """
        if self._closed:
            raise RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, "the server is about to stop")
        if len(self._queue) >= self._limits.queue:
            problem = f"{self._limits.queue} requests wait already: try again later"
            raise RefusalError(HTTPStatus.TOO_MANY_REQUESTS, problem)
        job = _Job(model, samples, asyncio.get_running_loop().create_future())
        # The thread says that it waits before it looks into the queue, so one sees the other.
        self._queue.append(job)
        if self._waits:
            with self._changed:
                self._waits = False
                self._changed.notify()
        model.statistics.pending += 1
        try:
            return await job.future
        except asyncio.CancelledError:
            # Its time is up: it leaves its place to another.
            with suppress(ValueError):
                self._queue.remove(job)
            raise
        finally:
            model.statistics.pending -= 1

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while jobs := self._take():
            for model in dict.fromkeys(job.model for job in jobs):
                group = [job for job in jobs if job.model is model]
                try:
                    self._answer(model, group)
                except BaseException:
                    # Polars' panics are no Exceptions; the thread must live on.
                    log.exception("a batch of %s failed", model.name)
                    failure = RuntimeError("the batch failed")
                    _hand_over([(job, failure) for job in group])

    def _take(self) -> list[_Job]:
        """Return the requests of the next batch; none at the end."""
        limits, queue = self._limits, self._queue
        jobs: list[_Job] = []
        while not (jobs or (self._closed and not queue)):
            self._wait(lambda: bool(queue))
            if limits.delay_s and (oldest := next(iter(queue), None)) is not None:
                left = limits.delay_s - (time.perf_counter_ns() - oldest.since_ns) / 1e9
                self._wait(
                    lambda: sum(len(job.samples) for job in list(queue)) >= limits.batch,
                    max(left, 0.0),
                )
            rows = 0
            # Up to its end; whoever waits may leave it at any time.
            with suppress(IndexError):
                while not jobs or rows + len(queue[0].samples) <= limits.batch:
                    jobs.append(queue.popleft())
                    rows += len(jobs[-1].samples)
        return jobs

    def _wait(self, enough: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Wait for so much, or for the end."""

        def over() -> bool:
            self._waits = True
            return self._closed or enough()

        with self._changed:
            self._changed.wait_for(over, timeout_s)
            self._waits = False

    def _answer(self, model: Model, jobs: list[_Job]) -> None:
        """Compute the answers of requests to one model, and hand them over."""
        taken = time.perf_counter_ns()
        # Nobody waits for the others any more.
        done = scored(model, [job for job in jobs if not job.future.cancelled()])
        if count := len(done.ready):
            model.statistics.batch(
                sum(len(job.samples) for job in done.ready),
                {
                    "queue": sum(taken - job.since_ns for job in done.ready),
                    "compute_input": count * (done.encoded_ns - taken),
                    "compute_infer": count * (done.inferred_ns - done.encoded_ns),
                },
            )
        _hand_over(done.results)


class _Asking(Protocol):
    """A request, of which only its rows matter here."""

    @property
    def samples(self) -> Encoded | list[Row]: ...


J = TypeVar("J", bound=_Asking)


@dataclass(frozen=True, slots=True)
class Scored(Generic[J]):
    """What became of requests that shared a batch."""

    results: list[tuple[J, Outputs | Exception]]
    ready: list[J]
    """Those whose rows are rows of the model."""
    encoded_ns: int
    """When these were known, on the clock `time.perf_counter_ns`."""
    inferred_ns: int
    """When the model had scored them."""


def scored(model: Model, jobs: Sequence[J]) -> Scored[J]:
    """Return what a model says of the rows of each request; an error is that request's alone."""
    pieces, results = _encoded(model, jobs)
    encoded_ns = time.perf_counter_ns()
    try:
        results += _computed(model, pieces)
    except Exception:
        for piece in pieces:
            try:
                results += _computed(model, [piece])
            except Exception as error:
                results += [(job, _shown(error)) for job in piece[0]]
    ready = [job for piece, _ in pieces for job in piece]
    return Scored(results, ready, encoded_ns, time.perf_counter_ns())


def _encoded(
    model: Model, jobs: Sequence[J]
) -> tuple[list[tuple[list[J], Encoded]], list[tuple[J, Outputs | Exception]]]:
    """Return requests with their rows, one after another, and what is wrong with others."""
    pieces: list[tuple[list[J], Encoded]] = []
    raw: list[tuple[J, list[Row]]] = []
    for job in jobs:
        if isinstance(job.samples, Encoded):
            pieces.append(([job], job.samples))
        else:
            raw.append((job, job.samples))
    pieces, errors = _finite(pieces)
    encoded = encode_together([rows for _, rows in raw], model.predictor) if raw else []
    if isinstance(encoded, Encoded):
        return [([job for job, _ in raw], encoded), *pieces], errors
    for (job, _), result in zip(raw, encoded, strict=True):
        if isinstance(result, Encoded):
            pieces.append(([job], result))
        else:
            errors.append((job, _shown(result)))
    return pieces, errors


def _finite(
    pieces: list[tuple[list[J], Encoded]],
) -> tuple[list[tuple[list[J], Encoded]], list[tuple[J, Outputs | Exception]]]:
    """Return requests whose numbers are finite, and errors of those where one is not."""
    if not pieces or np.isfinite(np.concatenate([rows.dense for _, rows in pieces])).all():
        return pieces, []
    finite: list[tuple[list[J], Encoded]] = []
    errors: list[tuple[J, Outputs | Exception]] = []
    for jobs, rows in pieces:
        try:
            check_finite(rows.dense)
            finite.append((jobs, rows))
        except RefusalError as refusal:
            errors += [(job, refusal) for job in jobs]
    return finite, errors


def joined(pieces: Sequence[Encoded]) -> Encoded:
    """Return the rows of several pieces, at least one, as one."""
    if len(pieces) == 1:
        return pieces[0]
    lists = [piece.lists for piece in pieces if piece.lists is not None]
    return Encoded(
        np.concatenate([piece.dense for piece in pieces]),
        np.concatenate([piece.ids for piece in pieces]),
        lists=join(lists) if lists else None,
    )


def _computed(
    model: Model, pieces: list[tuple[list[J], Encoded]]
) -> list[tuple[J, Outputs | Exception]]:
    """Return the outputs of each request, from one batch of all."""
    if not pieces:
        return []
    predictor = model.predictor
    batch = predictor.batch(joined([encoded for _, encoded in pieces]))
    logits = predictor.logits(batch).numpy()
    scores = logits if predictor.schema.task == "regression" else sigmoid(logits)
    scores = scores.astype(np.float32, copy=False)
    results: list[tuple[J, Outputs | Exception]] = []
    start = 0
    for jobs, _ in pieces:
        for job in jobs:
            stop = start + len(job.samples)
            results.append((job, {"logits": logits[start:stop], "scores": scores[start:stop]}))
            start = stop
    return results


def _hand_over(results: Sequence[tuple[_Job, Outputs | Exception]]) -> None:
    """Give results to those who wait for them, in their own thread."""
    if results:
        try:
            results[0][0].future.get_loop().call_soon_threadsafe(_deliver, results)
        except RuntimeError:
            log.warning("%d answers came after the end of the server", len(results))


def _deliver(results: Sequence[tuple[_Job, Outputs | Exception]]) -> None:
    for job, result in results:
        if job.future.done():
            continue
        if isinstance(result, Exception):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)


def _shown(error: Exception) -> Exception:
    """Return an error as its client gets it: what is wrong with its rows is said."""
    if isinstance(error, RefusalError) or not isinstance(error, DlrmError):
        return error
    return bad(str(error))
