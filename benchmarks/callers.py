"""Clients of the reliability run, and what each answer must be.

    versioned   asks for one of the versions that there are
    caller      asks without a pause, one request after the other, and checks every answer
    slow        sends its request in pieces
    vanishing   goes in the middle of a request, or before its answer
    malformed   damaged requests, and bytes that are no HTTP
    oversized   bodies that are too large, announced or not
    crowd       more requests at once than the queue holds

A caller's answer is right if it names a version whose checkpoint has these scores, bit for bit.
"""

import asyncio
import json
import math
import random
import socket
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlrm.serving.protocol import HEADER_LENGTH
from mutants import UNFINISHED, WIRE, Example, Mutants, Sent

SILENCE_S = 30
"""Seconds without an answer after which a request counts as lost."""
JUST_SENT_S = 0.1
"""A request sent so shortly before the end may not have been taken yet."""


@dataclass(slots=True)
class Facts:
    """What the run knows of the server, and what it has seen."""

    port: int
    expected: Mapping[str, Mapping[int, NDArray[np.float32]]]
    """Model -> steps of a checkpoint -> scores (rows, K)."""
    versions: dict[tuple[int, str, str], int] = field(default_factory=dict)
    """Life of the worker, model, version -> steps of its checkpoint."""
    life: int = 0
    """How many workers there were before this one."""
    changed_s: dict[str, float] = field(default_factory=dict)
    """Model -> until when it was unloaded or loaded last; infinite while it is."""
    current: dict[str, list[str]] = field(default_factory=dict)
    """Model -> its versions."""
    disturbed_s: float = 0.0
    """Until when no worker answered last; infinite while none does."""
    ended_s: float | None = None
    """When SIGTERM was sent."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Kind of client and outcome -> how many."""
    wrong: list[str] = field(default_factory=list)
    """What must not be."""
    scored: dict[tuple[int, int, str, str, int], set[bytes]] = field(
        default_factory=lambda: defaultdict(set)
    )
    """First and last life of a request, model, version, row -> the scores that came."""

    @property
    def down(self) -> bool:
        """Whether a worker was killed and none answers yet."""
        return self.disturbed_s == math.inf

    def note(self, kind: str, outcome: str) -> None:
        self.counts[kind, outcome] += 1

    def fail(self, kind: str, problem: str) -> None:
        """Count an outcome that must not be."""
        self.note(kind, "WRONG")
        if len(self.wrong) < 100:
            self.wrong.append(f"{kind}: {problem}")

    def check(self) -> None:
        """Compare all scores with those of the checkpoints."""
        for (first, last, model, version, row), scores in self.scored.items():
            steps = {self.versions.get((life, model, version)) for life in range(first, last + 1)}
            right = {self.expected[model][k][row].tobytes() for k in steps if k is not None}
            if not scores <= right:
                problem = f"{len(scores - right)} scores of row {row} are none of this version's"
                self.fail("caller", f"{model}, version {version}: {problem}")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """A connection to the server, made when it is needed."""

    def __init__(self, facts: Facts):
        self._facts = facts
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._answer: asyncio.Task[Answer] | None = None
        self.life = 0
        """Of the worker that took it."""
        self.whole_s: float | None = None
        """When the last request was sent wholly."""
        self.partial = False
        """Whether some of an answer came."""

    async def send(self, data: bytes, pieces: int = 1, pause_s: float = 0.0) -> None:
        """Send a request, or as much of it as the server wants: what it refuses has no end."""
        self.whole_s, self.partial = None, False
        if self._streams is None:
            self.life = self._facts.life
            self._streams = await asyncio.open_connection("127.0.0.1", self._facts.port)
        reader, writer = self._streams
        self._answer = asyncio.create_task(self._read(reader))
        size = -(-len(data) // pieces)
        for start in range(0, len(data), size):
            if self._answer.done():
                return
            writer.write(data[start : start + size])
            await writer.drain()
            if pieces > 1:
                await asyncio.sleep(pause_s)
        self.whole_s = time.monotonic()

    async def answer(self) -> Answer:
        """Return the answer; ConnectionError, EOFError or TimeoutError where there is none."""
        assert self._answer is not None
        async with asyncio.timeout(SILENCE_S):
            answer = await self._answer
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    async def _read(self, reader: asyncio.StreamReader) -> Answer:
        line = await reader.readline()
        self.partial = bool(line)
        if not line.endswith(b"\r\n"):
            raise EOFError
        headers: dict[str, str] = {}
        while (text := (await reader.readline()).decode()) not in ("\r\n", ""):
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(int(line.split()[1]), headers, body)

    def close(self, *, reset: bool = False) -> None:
        if self._answer is not None:
            if self._answer.done() and not self._answer.cancelled():
                # Nobody may have asked for it.
                self._answer.exception()
            self._answer.cancel()
            self._answer = None
        if self._streams is None:
            return
        writer = self._streams[1]
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()
        self._streams = None


async def asked(
    facts: Facts, kind: str, connection: Connection, sent: bytes, **how: Any
) -> Answer | None:
    """Return the answer to a request; where none came, count whether that may be."""
    began = time.monotonic()
    try:
        await connection.send(sent, **how)
        return await connection.answer()
    except TimeoutError:
        facts.fail(kind, f"no answer within {SILENCE_S} s")
    except (OSError, EOFError):
        ended = facts.ended_s
        if ended is not None:
            whole = connection.whole_s
            if connection.partial or (whole is not None and whole < ended - JUST_SENT_S):
                facts.fail(kind, "a request that was accepted has no answer")
            facts.note(kind, "after the end")
        elif facts.disturbed_s >= began or connection.life < facts.life:
            facts.note(kind, "worker killed")
        else:
            facts.fail(kind, "the connection was closed without an answer")
    connection.close()
    return None


async def caller(facts: Facts, asks: Sequence["Ask"], rng: random.Random) -> None:
    """Ask until the server ends."""
    connection = Connection(facts)
    while await judged(facts, "caller", connection, rng.choice(asks)) or facts.ended_s is None:
        if facts.down:
            await asyncio.sleep(0.05)
    connection.close()


async def judged(facts: Facts, kind: str, connection: Connection, ask: "Ask", **how: Any) -> bool:
    """Send a request that is right, and look at its answer; return whether there is one."""
    began = time.monotonic()
    answer = await asked(facts, kind, connection, ask.sent, **how)
    if answer is None:
        return False
    if answer.status == 200:
        facts.note(kind, "200")
        try:
            model, version, rows = ask.read(answer)
        except (ValueError, KeyError, AssertionError) as error:
            facts.fail(kind, f"an answer that is none: {error!r}, {answer.body[:200]!r}")
            return True
        if model != ask.model or version != (ask.version or version):
            asked_of = f"{ask.model}, version {ask.version}"
            facts.fail(kind, f"{model}, version {version} has answered for {asked_of}")
        for row, score in zip(ask.rows, rows, strict=True):
            facts.scored[connection.life, facts.life, model, version, row].add(score.tobytes())
        return True
    changed = max(facts.changed_s.get(ask.model, 0.0), facts.disturbed_s) >= began
    refused = {
        HTTPStatus.TOO_MANY_REQUESTS: True,
        # A machine that is too slow for its load.
        HTTPStatus.GATEWAY_TIMEOUT: True,
        # A model that is unloaded, or the end.
        HTTPStatus.SERVICE_UNAVAILABLE: changed or facts.ended_s is not None,
        # A version that another has taken the place of.
        HTTPStatus.NOT_FOUND: changed and ask.version is not None,
    }
    if refused.get(HTTPStatus(answer.status)):
        facts.note(kind, str(answer.status))
    else:
        facts.fail(kind, f"{answer.status}: {answer.body[:200]!r}")
    return True


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that is right."""

    model: str
    rows: Sequence[int]
    """Numbers of the rows that it scores."""
    sent: bytes
    id: str | None = None
    """Of an inference request; None of `/score`."""
    version: str | None = None
    """Which one is asked; None for the newest."""

    def of_version(self, version: str) -> "Ask":
        """Return an inference request to a version."""
        path = f"/versions/{version}/infer ".encode()
        return replace(self, sent=self.sent.replace(b"/infer ", path, 1), version=version)

    def read(self, answer: Answer) -> tuple[str, str, NDArray[np.float32]]:
        """Return the model, the version and the scores (rows, K) of an answer."""
        if self.id is None:
            value = json.loads(answer.body)
            scores = value["scores"] if "scores" in value else [value["score"]]
            table = [list(x.values()) if isinstance(x, dict) else [x] for x in scores]
            return value["model"], value["version"], np.array(table, np.float32)
        length = int(answer.headers.get(HEADER_LENGTH, len(answer.body)))
        head = json.loads(answer.body[:length])
        assert head["id"] == self.id, f"{head['id']} for {self.id}"
        (output,) = head["outputs"]
        if "data" in output:
            flat = np.array(output["data"], np.float32)
        else:
            flat = np.frombuffer(answer.body, "<f4", offset=length)
        return head["model_name"], head["model_version"], flat.reshape(output["shape"])


def asks(
    model: str, rows: Sequence[Mapping[str, Any]], predictor: Any, make: Callable[..., Example]
) -> list[Ask]:
    """Return requests of all kinds for the rows of a model."""
    made: list[Ask] = []
    for start in range(0, len(rows), 8):
        numbers = range(start, min(start + 8, len(rows)))
        one = make(model, predictor, *(rows[number] for number in numbers))
        made.append(Ask(model, [start], one.score().wire()))
        many = Sent("POST", f"/score/{model}", json.dumps([rows[k] for k in numbers]).encode())
        made.append(Ask(model, numbers, many.wire()))
        for binary in (True, False):
            key = f"{model}-{start}-{binary}"
            output = {"name": "scores", "parameters": {"binary_data": binary}}
            sent = one.infer(binary=binary, id=key, outputs=[output])
            made.append(Ask(model, numbers, sent.wire(), key))
    return made


async def versioned(facts: Facts, asks: Sequence[Ask], rng: random.Random) -> None:
    ask = rng.choice([ask for ask in asks if ask.id is not None])
    if versions := facts.current.get(ask.model):
        connection = Connection(facts)
        await judged(facts, "of a version", connection, ask.of_version(rng.choice(versions)))
        connection.close()


async def slow(facts: Facts, ask: Ask, rng: random.Random) -> None:
    connection = Connection(facts)
    await judged(facts, "slow", connection, ask, pieces=20, pause_s=rng.choice((0.01, 0.1)))
    connection.close()


async def vanishing(facts: Facts, ask: Ask, rng: random.Random) -> None:
    connection = Connection(facts)
    with suppress(OSError):
        await connection.send(ask.sent[: rng.randint(1, len(ask.sent))])
        await asyncio.sleep(rng.choice((0, 0.001, 0.05)))
        facts.note("vanishing", "gone")
    connection.close(reset=rng.random() < 0.5)


async def malformed(
    facts: Facts, mutants: Mutants, rng: random.Random, patience_s: float = SILENCE_S
) -> None:
    if rng.random() < 0.3:
        sent = rng.choice([*WIRE.values(), *UNFINISHED.values()])
    else:
        sent = mutants[rng.randrange(1 << 40)].wire("connection: close")
    connection = Connection(facts)
    try:
        async with asyncio.timeout(patience_s):
            await connection.send(sent)
            answer = await connection.answer()
    except (OSError, EOFError, ValueError, TimeoutError):
        # Closed without a word, which is an answer to bytes that are none.
        facts.note("malformed", "closed")
    else:
        if answer.status >= 500 and answer.status not in (503, 504):
            facts.fail("malformed", f"{answer.status} to {sent[:300]!r}")
        else:
            facts.note("malformed", f"{answer.status // 100}xx")
    connection.close()


async def oversized(facts: Facts, ask: Ask, rng: random.Random, body_bytes: int) -> None:
    head = f"POST /score/{ask.model} HTTP/1.1\r\nhost: x\r\n"
    if rng.random() < 0.5:
        sent = f"{head}content-length: {body_bytes + 1}\r\n\r\n".encode()
    else:
        piece = b"%x\r\n%b\r\n" % (1 << 16, b" " * (1 << 16))
        chunks = piece * (body_bytes // (1 << 16) + 1)
        sent = f"{head}transfer-encoding: chunked\r\n\r\n".encode() + chunks
    connection = Connection(facts)
    try:
        await connection.send(sent)
        answer = await connection.answer()
    except (OSError, EOFError):
        # It goes on to send while the server has refused and closed.
        facts.note("oversized", "closed")
    else:
        if answer.status in (413, 503):
            facts.note("oversized", str(answer.status))
        else:
            facts.fail("oversized", f"{answer.status}: {answer.body[:200]!r}")
    connection.close()


async def crowd(facts: Facts, asks: Sequence[Ask], rng: random.Random, size: int) -> None:
    async def one(ask: Ask) -> None:
        connection = Connection(facts)
        await judged(facts, "crowd", connection, ask)
        connection.close()

    await asyncio.gather(*(one(rng.choice(asks)) for _ in range(size)))


async def again_and_again(facts: Facts, pause_s: float, one: Callable[[], Awaitable[None]]) -> None:
    """Be a client of a kind, one after the other, until the server ends."""
    while facts.ended_s is None:
        if not facts.down:
            await one()
        await asyncio.sleep(pause_s)
