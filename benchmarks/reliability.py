"""A server under load, while all goes wrong around it: what is lost, what is mixed, what grows?

    python benchmarks/reliability.py [--minutes 10]

`dlrm serve` with two models, one of which has two versions. Clients ask without a pause; every
tenth second (of a short run more often) a model gets another checkpoint and is loaded anew, or
unloaded and loaded, at times while its files are exchanged again; others are slow, vanish, send
damaged requests, too large ones, more than the queue holds; the process that answers is killed
once, where another replaces it. In the end SIGTERM comes while dozens of requests are under way.
Passed is: every accepted request has an answer or a refusal, the process that was killed apart;
every score is that of `Predictor` for the checkpoint of the version that the answer names, bit for
bit; no status 500; memory does not grow.
"""

import argparse
import asyncio
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np

from callers import (
    SILENCE_S,
    Ask,
    Connection,
    Facts,
    again_and_again,
    asks,
    caller,
    crowd,
    judged,
    malformed,
    oversized,
    slow,
    vanishing,
    versioned,
)
from dlrm.bench.results import append
from dlrm.training.predictor import Predictor
from mutants import Mutants
from served_process import ServedProcess
from small_runs import drawn_rows, example, trained

CHECKPOINTS, ROWS = 4, 64
"""Runs of each model that are exchanged for one another; rows that are scored."""
CALLERS, CROWD = 12, 150
BODY_BYTES, QUEUE, TIMEOUT_S = 1 << 20, 64, 5
LAST_ROWS, LAST = 4096, 48
"""Rows of each of the requests that are under way when SIGTERM comes, and how many there are."""
GROWTH_BYTES = 48 << 20
"""What memory may grow by in a run; ten minutes are some 60 loads and 300,000 requests."""
WARM_SHARE = 0.25
"""Share of a worker's life in which its memory still settles."""
END_S = 60


@dataclass(slots=True)
class Memory:
    """Memory of the process that answers, by its life."""

    points: list[tuple[float, int, int]] = field(default_factory=list)
    """Seconds since the start, life, bytes."""

    @property
    def growth_bytes(self) -> float:
        """The most that a worker's memory rose by after its warm-up, by the median slope."""
        growth = 0.0
        for life in {life for _, life, _ in self.points}:
            mine = [(t, size) for t, its, size in self.points if its == life and size]
            warm = mine[int(len(mine) * WARM_SHARE) :]
            if len(warm) > 8:
                t, size = np.array(warm, float).T
                i, j = np.triu_indices(len(t), 1)
                slope = float(np.median((size[j] - size[i]) / (t[j] - t[i])))
                growth = max(growth, slope * float(t[-1] - t[0]))
        return growth

    def drawn(self, width: int = 60) -> str:
        """Return the curve as a line of blocks, from 0 to the largest."""
        sizes = np.array([size for _, _, size in self.points], float)
        parts = [part.mean() for part in np.array_split(sizes, min(width, len(sizes)))]
        blocks = " ▁▂▃▄▅▆▇█"
        return "".join(blocks[round(part / sizes.max() * 8)] for part in parts)


@dataclass(slots=True)
class Operator:
    """Who exchanges checkpoints, loads and unloads models, and kills the worker."""

    served: ServedProcess
    facts: Facts
    folder: Path
    runs: Mapping[str, Sequence[Path]]
    rng: random.Random
    at: dict[str, int] = field(default_factory=dict)
    """Served directory -> which run it is now."""

    def exchange(self, slot: str) -> None:
        """Let a served directory be another run, from one moment to the next."""
        runs = self.runs[slot.rpartition("-")[0]]
        self.at[slot] = (self.at.get(slot, -1) + self.rng.randrange(1, len(runs))) % len(runs)
        new = self.folder / "new"
        new.symlink_to(runs[self.at[slot]])
        new.rename(self.folder / slot)

    async def call(self, method: str, path: str) -> tuple[int, Any]:
        """Return status and JSON of a request of its own."""
        connection = Connection(self.facts)
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
        try:
            await connection.send(head.encode())
            answer = await connection.answer()
        finally:
            connection.close()
        return answer.status, json.loads(answer.body) if answer.body else None

    async def learn(self) -> None:
        """Ask which checkpoint each version is, and whether they are those of the directories."""
        for model in self.runs:
            _, about = await self.call("GET", f"/v2/models/{model}")
            self.facts.current[model] = about["versions"]
            for version in about["versions"]:
                _, one = await self.call("GET", f"/v2/models/{model}/versions/{version}")
                steps = one["parameters"]["step"]
                known = self.facts.versions.setdefault((self.facts.life, model, version), steps)
                if known != steps:
                    self.facts.fail("load", f"{model}, version {version}: {known} became {steps}")

    async def load(self, number: int) -> None:
        """Exchange checkpoints of a model and load them."""
        slot = ("visits-a", "two-a", "visits-b")[number % 3]
        model = slot.rpartition("-")[0]
        path = f"/v2/repository/models/{model}"
        self.facts.changed_s[model] = math.inf
        self.exchange(slot)
        if number % 5 == 4:
            await self.call("POST", f"{path}/unload")
        loading = asyncio.create_task(self.call("POST", f"{path}/load"))
        if number % 4 == 3:
            await asyncio.sleep(self.rng.random() * 0.05)
            self.exchange(slot)
            status, _ = await loading
            self.facts.note("load, exchanged meanwhile", str(status))
            if status not in (HTTPStatus.OK, HTTPStatus.CONFLICT):
                self.facts.fail("load", f"{status} while the run was exchanged")
            elif status == HTTPStatus.OK:
                await self.learn()
            loading = self.call("POST", f"{path}/load")
        status, _ = await loading
        self.facts.note("load", str(status))
        if status != HTTPStatus.OK:
            self.facts.fail("load", f"status {status}")
        await self.learn()
        life = self.facts.life
        steps = sorted(self.facts.versions[life, model, v] for v in self.facts.current[model])
        served = sorted(k + 2 for other, k in self.at.items() if other.rpartition("-")[0] == model)
        if steps != served:
            self.facts.fail("load", f"{model} has checkpoints of {steps} steps, not of {served}")
        self.facts.changed_s[model] = time.monotonic()

    async def kill(self) -> None:
        """Kill the process that answers, and wait until another does."""
        worker = self.served.worker
        if worker is None:
            print("No worker is killed: the server is one process")
            return
        self.facts.life += 1
        self.facts.disturbed_s = math.inf
        killed = time.monotonic()
        os.kill(worker, signal.SIGKILL)
        while True:
            try:
                status, _ = await self.call("GET", "/v2/health/ready")
            except (OSError, EOFError, TimeoutError):
                status = 0
            if status == HTTPStatus.OK:
                break
            if time.monotonic() - killed > END_S:
                raise SystemExit(f"nobody replaced a worker that was killed within {END_S} s")
            await asyncio.sleep(0.05)
        self.facts.note("worker killed and replaced", f"{time.monotonic() - killed:.1f} s")
        # Its versions are counted anew: who asks for one of the old ones is still disturbed.
        await self.learn()
        self.facts.disturbed_s = time.monotonic()


async def end(served: ServedProcess, facts: Facts, operator: Operator, last: Sequence[Ask]) -> int:
    """Send SIGTERM while dozens of requests are under way; return the exit status."""

    async def once(ask: Ask) -> None:
        connection = Connection(facts)
        await judged(facts, "under way at the end", connection, ask)
        connection.close()

    under_way = [asyncio.create_task(once(ask)) for ask in last]
    # Until all of them are in the server, or answered.
    for _ in range(100):
        if await pending(operator) + sum(task.done() for task in under_way) >= len(last):
            break
        await asyncio.sleep(0.005)
    waiting = sum(not task.done() for task in under_way)
    facts.ended_s = time.monotonic()
    served.terminate()
    await asyncio.gather(*under_way)
    facts.note("SIGTERM", f"{waiting} under way")
    status = await asyncio.to_thread(served.wait, END_S)
    if status != 0:
        facts.fail("SIGTERM", f"exit status {status} after {END_S} s")
    return status or 0


async def pending(operator: Operator) -> int:
    """Return how many requests the server has taken and not answered."""
    connection = Connection(operator.facts)
    try:
        await connection.send(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        lines = (await connection.answer()).body.decode().splitlines()
    finally:
        connection.close()
    counts = [line.split()[-1] for line in lines if line.startswith("nv_inference_pending_")]
    return sum(map(int, counts))


async def watched(served: ServedProcess, facts: Facts, memory: Memory, period_s: float) -> None:
    began = time.monotonic()
    while facts.ended_s is None:
        if not facts.down:
            memory.points.append((time.monotonic() - began, facts.life, served.resident_bytes))
        await asyncio.sleep(period_s)


async def run(
    served: ServedProcess, operator: Operator, memory: Memory, seconds: float, seed: int
) -> None:
    """Let everything go wrong for so long."""
    facts, rng = operator.facts, operator.rng
    rows = {model: drawn_rows(model, ROWS) for model in operator.runs}
    predictors = {model: Predictor.open(runs[0], "cpu") for model, runs in operator.runs.items()}
    right = {
        model: asks(model, rows[model], predictor, example)
        for model, predictor in predictors.items()
    }
    every = [ask for some in right.values() for ask in some]
    mutants = Mutants(
        [example(model, predictors[model], rows[model][0]) for model in predictors], seed
    )
    many = [rows["visits"][k % ROWS] for k in range(LAST_ROWS)]
    large = example("visits", predictors["visits"], *many)
    numbers = [k % ROWS for k in range(LAST_ROWS)]
    output = {"name": "scores", "parameters": {"binary_data": True}}
    last = [
        Ask("visits", numbers, large.infer(binary=True, id=f"{k}", outputs=[output]).wire(), f"{k}")
        for k in range(LAST)
    ]
    await operator.learn()
    # Half a request outlasts its time; in a short run not the half minute that the server gives
    # half a head, which the end waits for.
    patience_s = min(SILENCE_S, TIMEOUT_S + seconds / 10)
    one = partial(rng.choice, every)
    tasks = [asyncio.create_task(caller(facts, every, rng)) for _ in range(CALLERS)]
    tasks += [
        asyncio.create_task(again_and_again(facts, pause_s, client))
        for pause_s, client in (
            (0.1, lambda: slow(facts, one(), rng)),
            (0.05, lambda: versioned(facts, every, rng)),
            (0.05, lambda: vanishing(facts, one(), rng)),
            *[(0.02, lambda: malformed(facts, mutants, rng, patience_s))] * 2,
            (0.5, lambda: oversized(facts, one(), rng, BODY_BYTES)),
            (2.0, lambda: crowd(facts, every, rng, CROWD)),
        )
    ]
    tasks.append(asyncio.create_task(watched(served, facts, memory, min(1.0, seconds / 60))))
    period_s = min(10.0, max(seconds / 60, 0.3))
    began, loads, killed = time.monotonic(), 0, False
    while (elapsed := time.monotonic() - began) < seconds:
        if not killed and elapsed > seconds / 6:
            killed = True
            await operator.kill()
        await operator.load(loads)
        loads += 1
        await asyncio.sleep(
            max(0.0, min(began + loads * period_s, began + seconds) - time.monotonic())
        )
    await end(served, facts, operator, last)
    done, late = await asyncio.wait(tasks, timeout=END_S)
    for task in done:
        task.result()
    for task in late:
        task.cancel()
        facts.fail("caller", "a client still waits after the end")
    # What was closed is gone a moment later.
    await asyncio.sleep(0.1)


def expected(runs: Mapping[str, Sequence[Path]]) -> dict[str, dict[int, Any]]:
    """Return what `Predictor` says of each checkpoint for the rows of its model."""
    return {
        model: {
            k + 2: Predictor.open(path, "cpu").scores(list(drawn_rows(model, ROWS)))
            for k, path in enumerate(paths)
        }
        for model, paths in runs.items()
    }


def main(words: Sequence[str] = ()) -> int:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--minutes", type=float, default=10.0)
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--quick", action="store_true", help="six seconds: does it work at all?")
    given = flags.parse_args(list(words))
    seconds = 6.0 if given.quick else given.minutes * 60
    memory = Memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = trained(folder, CHECKPOINTS)
        limits = {"body-bytes": BODY_BYTES, "queue": QUEUE, "timeout-s": TIMEOUT_S}
        flagged = [
            word for key, value in limits.items() for word in (f"--limits.{key}", str(value))
        ]
        operator = Operator(None, Facts(0, expected(runs)), folder, runs, random.Random(given.seed))  # pyright: ignore
        for slot in ("visits-a", "visits-b", "two-a"):
            operator.exchange(slot)
        served_words = ["visits=visits-a", "visits=visits-b", "two=two-a", *flagged]
        with ServedProcess(served_words, folder, folder / "log") as served:
            operator.served, operator.facts.port = served, served.port
            asyncio.run(run(served, operator, memory, seconds, given.seed))
            log = served.log
    facts = operator.facts
    facts.check()
    growth = memory.growth_bytes
    if growth > GROWTH_BYTES:
        facts.fail("memory", f"grew by {growth / 2**20:.0f} MiB")
    if problems := [line for line in log.splitlines() if line.endswith(" failed")]:
        facts.fail("log", problems[0])
    report(facts, memory, seconds)
    sizes = [size for _, _, size in memory.points]
    values = {
        "run_s": seconds,
        "outcomes": {
            f"{kind}: {outcome}": n for (kind, outcome), n in sorted(facts.counts.items())
        },
        "scores_compared": len(facts.scored),
        "wrong": len(facts.wrong),
        "growth_bytes": growth,
        "first_bytes": sizes[0],
        "last_bytes": sizes[-1],
        "memory_mib": [round(size / 2**20) for size in sizes],
        "verdict": "failed" if facts.wrong else "passed",
        "seed": given.seed,
    }
    append("reliability", values, given.out)
    return 1 if facts.wrong else 0


def report(facts: Facts, memory: Memory, seconds: float) -> None:
    """Print the counts, the curve of memory and the verdict."""
    print("| client | outcome | times |\n|---|---|---|")
    for (kind, outcome), times in sorted(facts.counts.items()):
        print(f"| {kind} | {outcome} | {times:,} |")
    sizes = [size / 2**20 for _, _, size in memory.points]
    print(
        f"Memory {memory.drawn()} {sizes[0]:.0f} to {sizes[-1]:.0f} MiB, at most {max(sizes):.0f}; "
        f"after its warm-up it grew by {memory.growth_bytes / 2**20:.1f} MiB"
    )
    for problem in facts.wrong[:20]:
        print(f"WRONG: {problem}")
    print(
        f"{'FAILED' if facts.wrong else 'Passed'}: {seconds:.0f} s, "
        f"{len(facts.versions)} versions, {len(facts.scored):,} different answers compared with "
        "their checkpoints"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
