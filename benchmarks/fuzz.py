"""Damaged requests against the server: each is answered or refused, whatever it is.

    python benchmarks/fuzz.py [RUN...] [--inputs 120000] [--seed 1]

Each input goes through the parsers by themselves, which must give a request or a RefusalError and
do no more than so much work a byte, counted in calls of functions, and through the whole
application, several at a time among valid ones, whose answers must not change: no status is 500.
Memory must be the same at the end as after the first quarter. What fails is shown with its number:
`--seed S --first K --inputs 1` does it again.
"""

import argparse
import asyncio
import gc
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dlrm.bench.results import append
from dlrm.serving.app import App
from dlrm.serving.batcher import Batcher
from dlrm.serving.endpoints import Endpoints
from dlrm.serving.limits import Limits, RefusalError
from dlrm.serving.model import BackEnd, Model
from dlrm.serving.protocol import HEADER_LENGTH, decompressed, parse_infer
from dlrm.serving.repository import Repository
from dlrm.serving.rows import encode_rows, parse_rows
from mutants import Mutants, Sent
from small_runs import ROWS, example, trained

LIMITS = Limits(body_bytes=1 << 18, rows=100)
CALLS, CALLS_A_BYTE = 10_000, 20
"""The most calls of functions that an input may take, and the most for each of its bytes."""
MOST_CPU_S = 5.0
"""A thousand times what one takes: a hang, on however slow a machine."""
GROWTH_BYTES = 32 << 20
"""What memory may grow by after the first quarter; a leak of 400 bytes an input is more."""
TOGETHER = 16
"""Requests at a time, one of which is valid."""


@dataclass(slots=True)
class Report:
    """What became of the inputs."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Status of the application, and `read` or `refused` of the parsers -> how many."""
    failures: list[str] = field(default_factory=list)
    calls_a_byte: float = 0.0
    """The most, of inputs that took more than `CALLS`."""
    growth_bytes: int = 0

    @property
    def passed(self) -> bool:
        return not self.failures


def parsed(sent: Sent, model: Model) -> str:
    """Put a body through the parsers; return what came of it."""
    try:
        LIMITS.check_body(len(sent.body))
        encoding = sent.headers.get("content-encoding", "").lower()
        body = decompressed(sent.body, encoding, LIMITS)
        if sent.path.startswith("/score"):
            rows, _ = parse_rows(body, LIMITS)
            encode_rows(rows, model.predictor)
        else:
            asked = parse_infer(body, sent.headers.get(HEADER_LENGTH), model.signature)
            model.predictor.batch(model.signature.encoded(asked.tensors, LIMITS))
    except RefusalError as refusal:
        if not 400 <= refusal.status < 500:
            return f"refused with {refusal.status.value}"
        return "refused"
    return "read"


def counted(sent: Sent, model: Model) -> tuple[str, int]:
    """Return what came of a body, and how many functions were called for it."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    began = time.thread_time()
    sys.setprofile(count)
    try:
        outcome = parsed(sent, model)
    except BaseException as error:
        # Polars' panics are no Exceptions.
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome = f"{type(error).__name__}: {error}"
    finally:
        sys.setprofile(None)
    if (spent_s := time.thread_time() - began) > MOST_CPU_S:
        # What C code does is no calls.
        outcome = f"{spent_s:.1f} s of CPU time"
    return outcome, calls


class Call:
    """A request as granian hands it to an application, and the response."""

    def __init__(self, sent: Sent):
        self.scope = SimpleNamespace(
            method=sent.method,
            path=sent.path.partition("?")[0],
            headers={"content-length": str(len(sent.body)), **sent.headers},
        )
        self._body = sent.body
        self.status, self.body = 0, b""

    async def __call__(self) -> bytes:
        return self._body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    def response_bytes(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.body = status, body

    def response_empty(self, status: int, headers: Any) -> None:
        self.status = status


async def asked(app: App, guarded: App, sent: Sequence[Sent]) -> list[Call]:
    """Send requests at once, those with a token to the application that asks for one."""
    calls = [Call(one) for one in sent]
    apps = [guarded if "authorization" in one.headers else app for one in sent]
    pairs = zip(apps, calls, strict=True)
    await asyncio.gather(*(asks.__rsgi__(call.scope, call) for asks, call in pairs))
    return calls


def resident() -> int:
    """Return the memory of this process, in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def read(report: Report, sent: Sent, model: Model) -> str | None:
    """Put a body through the parsers, and count it; return what is wrong with what came of it."""
    outcome, calls = counted(sent, model)
    report.outcomes[outcome if outcome in ("read", "refused") else "error"] += 1
    size = len(sent.body) or 1
    if calls > CALLS:
        # Some of it is done once, such as imports.
        calls = counted(sent, model)[1]
        report.calls_a_byte = max(report.calls_a_byte, calls / size)
    if calls > max(CALLS, CALLS_A_BYTE * size):
        return f"{calls} calls for {size} bytes"
    return None if outcome in ("read", "refused") else outcome


async def fuzz(words: Sequence[str], inputs: int, seed: int, first: int = 0) -> Report:
    """Send inputs to the parsers and the application of the runs in `words`."""
    repository = Repository(list(words), BackEnd(device="cpu"))
    batcher = Batcher(LIMITS)
    app = App(Endpoints(repository, batcher, LIMITS))
    guarded = App(Endpoints(repository, batcher, LIMITS, "s3cret"))
    models = {name: repository.find(name) for name in repository.names}
    examples = [
        example(name, model.predictor, ROWS[name.partition("-")[0]])
        for name, model in models.items()
    ]
    mutants, report = Mutants(examples, seed), Report()
    valid = [request for one in examples for request in (one.score(), one.infer(binary=True))]
    expected = {call.body for call in await asked(app, guarded, valid)}
    before, warm = 0, inputs // 4
    try:
        for start in range(first, first + inputs, TOGETHER - 1):
            numbers = range(start, min(start + TOGETHER - 1, first + inputs))
            group = [mutants[number] for number in numbers]
            for number, sent in zip(numbers, group, strict=True):
                model = next((m for n, m in models.items() if f"/{n}" in sent.path), None)
                if model is not None and (why := read(report, sent, model)):
                    report.failures.append(f"{seed}, {number}: {why}: {_shown(sent)}")
            calls = await asked(app, guarded, [*group, valid[start % len(valid)]])
            for number, sent, call in zip(numbers, group, calls, strict=False):
                report.outcomes[str(call.status)] += 1
                if call.status >= 500 or call.status < 200:
                    report.failures.append(f"{seed}, {number}: {call.status}: {_shown(sent)}")
            if calls[-1].body not in expected:
                report.failures.append(f"{seed}, {start}: a valid one got {calls[-1].body[:200]}")
            report.inputs += len(group)
            if before == 0 and report.inputs >= warm:
                before = resident()
    finally:
        batcher.close()
    report.growth_bytes = resident() - before
    if report.growth_bytes > GROWTH_BYTES:
        report.failures.append(f"memory grew by {report.growth_bytes / 2**20:.0f} MiB")
    return report


def _shown(sent: Sent) -> str:
    body = sent.body if len(sent.body) < 400 else sent.body[:400] + b"..."
    return f"{sent.method} {sent.path[:200]} {dict(sent.headers)} {body!r}"


def main(words: Sequence[str] = ()) -> int:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    names = ", ".join(ROWS)
    flags.add_argument(
        "runs", nargs="*", metavar="RUN", help=f"runs named {names}; none: they are trained"
    )
    flags.add_argument("--inputs", type=int, default=120_000)
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--first", type=int, default=0, help="number of the first input")
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--quick", action="store_true", help="few inputs: does it work at all?")
    given = flags.parse_args(list(words))
    inputs = 500 if given.quick else given.inputs
    # A failure is in the report; the log would have each a second time.
    logging.disable(logging.CRITICAL)
    try:
        with tempfile.TemporaryDirectory() as folder:
            runs = given.runs or [str(runs[0]) for runs in trained(Path(folder)).values()]
            began = time.perf_counter()
            report = asyncio.run(fuzz(runs, inputs, given.seed, given.first))
    finally:
        logging.disable(logging.NOTSET)
    for failure in report.failures[:20]:
        print(failure)
    for outcome, count in sorted(report.outcomes.items()):
        print(f"{outcome:>8} {count:>8,}")
    print(
        f"{report.inputs:,} inputs, {len(report.failures)} failed; memory grew by "
        f"{report.growth_bytes / 2**20:.1f} MiB after the first quarter; at most "
        f"{report.calls_a_byte:.1f} calls a byte"
    )
    values = {
        "inputs": report.inputs,
        "first_input": given.first,
        "failures": len(report.failures),
        "outcomes": dict(report.outcomes),
        "growth_bytes": report.growth_bytes,
        "calls_a_byte": report.calls_a_byte,
        "run_s": time.perf_counter() - began,
        "seed": given.seed,
    }
    append("fuzz", values, given.out)
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
