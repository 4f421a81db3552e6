"""Requests a second: `dlrm serve` beside FastAPI and LitServe, the same model behind all of them.

    python benchmarks/serving.py [--table FILE.md]

All servers run at once and the load goes round: in each round every kind of request has some
seconds of 32 connections in a closed loop, from a client in this process (`dlrm.bench.load.client`)
whose requests are bytes that were made before, of thousands of different rows. Servers and client
share the machine. benchmarks/serving_peers.py says how the peers are installed; those that are not
are left out, and that is said. Goals, of two cores: 12,000 requests of one row a second, 100,000
rows a second by 64, p99 of both within 20 ms; 3 and 8 times the requests of FastAPI and LitServe;
5,000 raw rows a second through /score; ready within 2 s.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from dlrm.bench.load.client import Client, request
from dlrm.bench.results import append
from dlrm.bench.timer import Timing, ratio, verdict
from dlrm.bench.watch import Watch
from dlrm.data.sources.clicks import ClicksSource
from dlrm.training.predictor import Predictor
from mutants import Sent
from served_process import ServedProcess
from serving_peers import NEEDED, missing
from small_runs import example

CONNECTIONS = 32
GOALS: Mapping[str, tuple[str, float]] = {
    "binary, 1 row": ("requests_per_s", 12_000),
    "binary, 64 rows": ("rows_per_s", 100_000),
    "/score, 1 row": ("requests_per_s", 5_000),
}
"""Kind of request -> the figure that has a goal, and the goal."""
P99_MS, READY_S = 20.0, 2.0
TIMES: Mapping[str, float] = {"fastapi": 3.0, "litserve": 8.0}
"""Peer -> how many times its requests a second are the goal."""


@dataclass(slots=True)
class Load:
    """A kind of request to one server, and what its rounds were like."""

    name: str
    port: int
    requests: Sequence[bytes]
    rows: int = 1
    per_request: list[float] = field(default_factory=list)
    """Seconds over requests, a value a round."""
    p50_s: list[float] = field(default_factory=list)
    p99_s: list[float] = field(default_factory=list)

    def round(self, seconds: float) -> None:
        """Send requests for so long, each connection its next as soon as it has its answer."""
        latencies: list[float] = []
        failed, lock, done = 0, threading.Lock(), threading.Event()
        under_way, endless = CONNECTIONS, cycle(self.requests)
        end = time.perf_counter() + seconds

        def completed(ends: Sequence[tuple[float, bool]]) -> None:
            nonlocal failed, under_way
            now = time.perf_counter()
            for began, good in ends:
                latencies.append(now - began)
                failed += not good
                if now < end:
                    client.send(time.perf_counter(), next(endless))
                else:
                    with lock:
                        under_way -= 1
                    if under_way == 0:
                        done.set()

        client = Client("127.0.0.1", self.port, CONNECTIONS, completed)
        began = time.perf_counter()
        for _ in range(CONNECTIONS):
            client.send(time.perf_counter(), next(endless))
        done.wait(seconds + 60)
        elapsed = time.perf_counter() - began
        client.close()
        if failed or under_way:
            raise SystemExit(f"{self.name}: {failed} requests failed, {under_way} had no answer")
        self.per_request.append(elapsed / len(latencies))
        self.p50_s.append(float(np.percentile(latencies, 50)))
        self.p99_s.append(float(np.percentile(latencies, 99)))

    @property
    def timing(self) -> Timing:
        return Timing(self.name, self.per_request)

    def figures(self) -> dict[str, Any]:
        """Return the figures of a row of results."""
        low, high = self.timing.interval
        per_s = 1 / self.timing.median
        p50, p99 = Timing("p50", self.p50_s), Timing("p99", self.p99_s)
        return {
            "requests_per_s": per_s,
            "requests_per_s_low": 1 / high,
            "requests_per_s_high": 1 / low,
            "rows_per_s": per_s * self.rows,
            "rows_per_s_low": self.rows / high,
            "rows_per_s_high": self.rows / low,
            "p50_ms": p50.median * 1e3,
            "p50_interval": [x * 1e3 for x in p50.interval],
            "p99_ms": p99.median * 1e3,
            "p99_interval": [x * 1e3 for x in p99.interval],
        }


def run_of(folder: Path, *, quick: bool) -> Path:
    """Train the demo."""
    size = ("--data", "clicks:2000", "--max-steps", "2") if quick else ("--max-steps", "200")
    words = [sys.executable, "-m", "dlrm", "train", "demo", *size, "--no-baseline", "--run", "demo"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    return folder / "demo"


def loads_of(run: Path, count: int) -> dict[str, tuple[list[bytes], int]]:
    """Return kind of request -> the requests, of different rows, and the rows of each."""
    predictor = Predictor.open(run, "cpu")
    columns = predictor.features.needed
    frame = next(iter(ClicksSource(max(count, 64), seed=7).read())).select(columns)
    rows = frame.to_dicts()
    output = [{"name": "scores", "parameters": {"binary_data": True}}]

    def infer(start: int, size: int, *, binary: bool) -> bytes:
        some = [rows[(start + k) % len(rows)] for k in range(size)]
        one = example("demo", predictor, *some)
        outputs = output if binary else [{"name": "scores"}]
        return one.infer(binary=binary, outputs=outputs).wire()

    def peer(row: Mapping[str, Any]) -> bytes:
        batch = predictor.encode([row])
        body = {"dense": batch.dense.tolist(), "ids": batch.ids.tolist()}
        named = [("content-type", "application/json")]
        return request("x", "/predict", json.dumps(body).encode(), named)

    return {
        "binary, 1 row": ([infer(k, 1, binary=True) for k in range(count)], 1),
        "binary, 64 rows": ([infer(k * 64, 64, binary=True) for k in range(-(-count // 16))], 64),
        "/score, 1 row": (
            [Sent("POST", "/score", json.dumps(row).encode()).wire() for row in rows[:count]],
            1,
        ),
        "JSON, 1 row": ([infer(k, 1, binary=False) for k in range(count)], 1),
        "peer": ([peer(row) for row in rows[:count]], 1),
    }


@contextmanager
def peer_server(name: str, run: Path, first: bytes) -> Iterator[int]:
    """Serve a run behind a peer within the block; gives the port, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    script = str(Path(__file__).with_name("serving_peers.py"))
    words = [sys.executable, script, name, str(run), str(port)]
    process = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        end = time.monotonic() + 90
        while not _answers(port, first):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name} does not answer")
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        # LitServe leaves processes of its own behind.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int, first: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            client.sendall(first)
            return b" 200 " in client.recv(100)
    except OSError:
        return False


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a table of Markdown."""
    lines = [
        "| server | request | requests/s | rows/s | p50 ms | p99 ms |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        spread = f"{row['requests_per_s_low']:,.0f} to {row['requests_per_s_high']:,.0f}"
        lines.append(
            f"| {row['server']} | {row['request']} | {row['requests_per_s']:,.0f} ({spread}) | "
            f"{row['rows_per_s']:,.0f} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} |"
        )
    return "\n".join(lines)


def goals(
    rows: Sequence[Mapping[str, Any]], loads: Mapping[str, Load], ready_s: float
) -> list[str]:
    """Return what was reached, with intervals, and what was not."""
    by_name = {row["request"]: row for row in rows if row["server"] == "dlrm serve"}
    said = []

    def judged(what: str, low: float, high: float, goal: float, *, more: bool) -> None:
        if (low >= goal) if more else (high <= goal):
            word = "reached"
        else:
            word = "missed" if ((high < goal) if more else (low > goal)) else "no verdict"
        said.append(f"{what}: {low:,.2f} to {high:,.2f}, goal {goal:,.0f}: {word}")

    for name, (figure, goal) in GOALS.items():
        row = by_name[name]
        judged(f"{name}, {figure}", row[f"{figure}_low"], row[f"{figure}_high"], goal, more=True)
        if not name.startswith("/"):
            low, high = row["p99_interval"]
            judged(f"{name}, p99 ms", low, high, P99_MS, more=False)
    ours = loads["binary, 1 row"].timing
    for peer, goal in TIMES.items():
        if peer in loads:
            _, low, high = ratio(loads[peer].timing, ours)
            judged(f"times {peer}'s requests", low, high, goal, more=True)
            said.append(verdict(loads["JSON, 1 row"].timing, loads[peer].timing))
    judged("seconds from start to ready", ready_s, ready_s, READY_S, more=False)
    return said


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--rounds", type=int, default=9)
    flags.add_argument("--round-s", type=float, default=2.0, help="seconds of a kind in a round")
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--table", type=Path, help="write the table into this file too")
    flags.add_argument("--quick", action="store_true", help="tiny rounds: does it work at all?")
    given = flags.parse_args(list(words))
    if given.quick:
        given.rounds, given.round_s = 2, 0.2
    peers = [peer for peer in NEEDED if not (why := missing(peer)) or print(f"Without {why}")]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        run = run_of(folder, quick=given.quick)
        ready = []
        for _ in range(1 if given.quick else 5):
            with ServedProcess([str(run)], folder, folder / "log") as served:
                ready.append(served.ready_s)
        watch = stack.enter_context(Watch())
        kinds = loads_of(run, 64 if given.quick else 4096)
        served = stack.enter_context(ServedProcess([str(run)], folder, folder / "log"))
        first, _ = kinds.pop("peer")
        loads = {kind: Load(kind, served.port, made, rows) for kind, (made, rows) in kinds.items()}
        for peer in peers:
            port = stack.enter_context(peer_server(peer, run, first[0]))
            loads[peer] = Load(peer, port, first)
        names = list(loads)
        for turn in range(-1, given.rounds):
            for kind in names[turn % len(names) :] + names[: turn % len(names)]:
                loads[kind].round(given.round_s)
        for load in loads.values():
            # The first warmed up.
            for values in (load.per_request, load.p50_s, load.p99_s):
                del values[0]
        seen = watch.seen
    rows = []
    for kind, load in loads.items():
        server, asked = (kind, "JSON, 1 row") if kind in NEEDED else ("dlrm serve", kind)
        what = {"server": server, "request": asked, "rows": load.rows, "connections": CONNECTIONS}
        rows.append({**what, "rounds": given.rounds, **load.figures()})
        append("serving", {**rows[-1], **seen.to_dict()}, given.out)
    ready_s = float(np.median(ready))
    reached = goals(rows, loads, ready_s)
    append("serving-goals", {"ready_s": ready_s, "goals": reached, **seen.to_dict()}, given.out)
    print(table(rows))
    print("\n".join(reached))
    if given.table:
        given.table.write_text(table(rows) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
