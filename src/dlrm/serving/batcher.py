"""Requests that wait share a batch: one thread takes all that are there and asks the model once.

    submit ──queue──> take (greedy, or after a delay) ──> one batch a model ──> logits ──> futures

Rows of a request are encoded in that thread, too, each request by itself: what one sends changes
no other's answer. A batch that fails as a whole is done again request by request, so that an error
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

import numpy as np
import torch
from numpy.typing import NDArray

from dlrm.batch import Batch, Jagged
from dlrm.errors import DlrmError
from dlrm.metrics import sigmoid
from dlrm.serving.limits import Limits, RefusalError, bad
from dlrm.serving.model import Model

log = logging.getLogger(__name__)

Outputs = dict[str, NDArray[np.float32]]
"""`logits` and `scores`, (B, K) each."""


@dataclass(eq=False, slots=True)
class _Job:
    """A request in the queue."""

    model: Model
    rows: int
    batch: Callable[[], Batch]
    future: "asyncio.Future[Outputs]"
    since_ns: int = field(default_factory=time.perf_counter_ns)


class Batcher:
    """The queue of a server, and the thread that works it off."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._queue: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="dlrm-batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    async def outputs(self, model: Model, rows: int, batch: Callable[[], Batch]) -> Outputs:
        """Return what a model says of a request's rows.

        Args:
            model: Which.
            rows: How many.
            batch: Makes them a batch, in the thread.

        Raises:
            RefusalError: The queue is full, the server is about to stop, or the rows are wrong.

        """
        future = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._closed:
                raise RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, "the server is about to stop")
            if len(self._queue) >= self._limits.queue:
                problem = f"{self._limits.queue} requests wait already: try again later"
                raise RefusalError(HTTPStatus.TOO_MANY_REQUESTS, problem)
            job = _Job(model, rows, batch, future)
            self._queue.append(job)
            self._changed.notify()
        model.statistics.pending += 1
        try:
            return await future
        except asyncio.CancelledError:
            # Its time is up: it leaves its place to another.
            with self._changed, suppress(ValueError):
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
        limits = self._limits
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            if limits.delay_s and self._queue:
                left = limits.delay_s - (time.perf_counter_ns() - self._queue[0].since_ns) / 1e9
                self._changed.wait_for(
                    lambda: self._closed or sum(job.rows for job in self._queue) >= limits.batch,
                    timeout=max(left, 0.0),
                )
            jobs: list[_Job] = []
            rows = 0
            while self._queue and (not jobs or rows + self._queue[0].rows <= limits.batch):
                jobs.append(self._queue.popleft())
                rows += jobs[-1].rows
        return jobs

    def _answer(self, model: Model, jobs: list[_Job]) -> None:
        """Compute the answers of requests to one model, and hand them over."""
        taken = time.perf_counter_ns()
        ready: list[tuple[_Job, Batch]] = []
        results: list[tuple[_Job, Outputs | Exception]] = []
        for job in jobs:
            # Nobody waits for it any more.
            if job.future.cancelled():
                continue
            try:
                ready.append((job, job.batch()))
            except Exception as error:
                results.append((job, _shown(error)))
        encoded = time.perf_counter_ns()
        try:
            results += _computed(model, ready)
        except Exception:
            for pair in ready:
                try:
                    results += _computed(model, [pair])
                except Exception as error:
                    results.append((pair[0], _shown(error)))
        inferred = time.perf_counter_ns()
        if ready:
            count = len(ready)
            model.statistics.batch(
                sum(job.rows for job, _ in ready),
                {
                    "queue": sum(taken - job.since_ns for job, _ in ready),
                    "compute_input": count * (encoded - taken),
                    "compute_infer": count * (inferred - encoded),
                },
            )
        _hand_over(results)


def joined(batches: list[Batch]) -> Batch:
    """Return the samples of several batches, at least one, as one."""
    if len(batches) == 1:
        return batches[0]
    lists = None
    if batches[0].lists is not None:
        parts = [batch.lists for batch in batches if batch.lists is not None]
        starts = np.cumsum([0, *(part.values.shape[0] for part in parts)]).tolist()
        offsets = [part.offsets[:-1] + at for part, at in zip(parts, starts, strict=False)]
        end = torch.tensor(starts[-1:])
        lists = Jagged(torch.cat([part.values for part in parts]), torch.cat([*offsets, end]))
    return Batch(
        torch.cat([batch.dense for batch in batches]),
        torch.cat([batch.ids for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
        lists,
    )


def _computed(model: Model, ready: list[tuple[_Job, Batch]]) -> list[tuple[_Job, Outputs]]:
    """Return the outputs of each request, from one batch of all."""
    if not ready:
        return []
    logits = model.predictor.logits(joined([batch for _, batch in ready])).numpy()
    scores = logits if model.predictor.schema.task == "regression" else sigmoid(logits)
    scores = scores.astype(np.float32, copy=False)
    results, start = [], 0
    for job, batch in ready:
        stop = start + len(batch)
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
