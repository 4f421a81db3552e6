"""The process that makes load: MLPerf's generator in front of a client, with a task a line.

    standard input   a task, as JSON   {"scenario", "seconds", "rate", "seed", "limit_ms", "target"}
    standard output  its outcome, as JSON, see `dlrm.bench.load.driver`

It is a process of its own, so that it shares no interpreter with the server, and imports neither
torch nor numpy. MLPerf's generator knows when each query is due and counts its latency from then,
whenever it could be sent: in the scenario `server` arrivals are Poisson's, in `single` the next
query begins where the last one ended, in `offline` all are there at once. One of its samples is one
of our requests, with as many rows as it has.
"""

import json
import os
import resource
import sys
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dlrm.bench.load.client import Client

SCENARIOS = {"server": "Server", "single": "SingleStream", "offline": "Offline"}
"""Our names of scenarios, and MLPerf's."""
_PERCENTILES = {"p50_ms": 50, "p90_ms": 90, "p95_ms": 95, "p99_ms": 99, "p999_ms": 99.9}
_LEAST_NS = {True: 30_000, False: 2_000}
"""Less than a query takes alone, with a client and without: queries enough are drawn before."""
_DRAWN = 1.1
"""MLPerf's generator draws so many times the samples that it thinks it needs offline."""
_MOST_QUERIES = 2_000_000
"""Of a run: more than any server here answers in one, and as many as a few GB hold."""
_MEMORY_BYTES = 8 << 30
"""Of this process: queries without number end it, and not what else runs on the machine."""
_TOO_MANY = "Too many outstanding queries"


class _Target:
    """What queries go to, and what becomes of them.

    Args:
        task: With `target` null for nothing at all: each query ends where it begins.

    """

    def __init__(self, task: dict[str, Any]):
        import mlperf_loadgen

        self._respond = mlperf_loadgen.QuerySamplesComplete
        self._response = mlperf_loadgen.QuerySampleResponse
        target = task["target"]
        self._requests, self._rows = read_requests(target["requests"]) if target else ([b""], [1])
        self._window_s = task["seconds"]
        self._client = None
        if target:
            count = 1 if task["scenario"] == "single" else target["connections"]
            self._client = Client(target["host"], target["port"], count, self._completed)
        self._first_s = self._last_s = 0.0
        self._requests_done = self._rows_done = self._failed = 0
        self._in_window = (0, 0)

    def __len__(self) -> int:
        return len(self._requests)

    def issue(self, identities: list[int], places: list[int]) -> None:
        """Send queries, as MLPerf's generator asks for them."""
        if not self._first_s:
            self._first_s = time.perf_counter()
        if self._client is None:
            self._completed([((i, p), True) for i, p in zip(identities, places, strict=True)])
            return
        send, requests = self._client.send, self._requests
        for identity, place in zip(identities, places, strict=True):
            send((identity, place), requests[place])

    def _completed(self, ends: list[tuple[tuple[int, int], bool]]) -> None:
        self._last_s = time.perf_counter()
        responses = []
        for (identity, place), ok in ends:
            responses.append(self._response(identity, 0, 0))
            if ok:
                self._requests_done += 1
                self._rows_done += self._rows[place]
            else:
                self._failed += 1
        if self._last_s - self._first_s <= self._window_s:
            self._in_window = self._requests_done, self._rows_done
        self._respond(responses)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def outcome(self, *, window: bool) -> dict[str, Any]:
        """Return what was counted; rates of the first seconds alone where `window`."""
        took_s = max(self._last_s - self._first_s, 1e-9)
        requests, rows = self._requests_done, self._rows_done
        if window and took_s > self._window_s:
            (requests, rows), took_s = self._in_window, self._window_s
        return {
            "requests": self._requests_done + self._failed,
            "failed": self._failed,
            "requests_per_s": requests / took_s,
            "rows_per_s": rows / took_s,
        }


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Do a task, and return its outcome."""
    import mlperf_loadgen as loadgen

    target = _Target(task)
    # At a rate of 0, which is what follows from a run without an answer, it draws without end.
    rate = max(1 / task["seconds"], min(task["rate"], _MOST_QUERIES / task["seconds"]))
    settings = loadgen.TestSettings()
    settings.scenario = getattr(loadgen.TestScenario, SCENARIOS[task["scenario"]])
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(1000 * task["seconds"])
    settings.min_query_count = 1
    settings.schedule_rng_seed = settings.sample_index_rng_seed = task["seed"]
    settings.single_stream_expected_latency_ns = _LEAST_NS[task["target"] is not None]
    settings.offline_expected_qps = rate / _DRAWN
    settings.server_target_qps = rate
    if task["limit_ms"]:
        # So many wait where all of them come too late: the rest need not be sent.
        limit_s = task["limit_ms"] / 1000
        settings.server_target_latency_ns = round(1e9 * limit_s)
        settings.server_max_async_queries = 100 + int(2 * limit_s * rate)
    with TemporaryDirectory(prefix="dlrm-loadgen-") as folder:
        output = loadgen.LogOutputSettings()
        output.outdir = folder
        log = loadgen.LogSettings()
        log.log_output, log.enable_trace = output, False
        system = loadgen.ConstructFastSUT(target.issue, lambda: None)
        samples = loadgen.ConstructQSL(len(target), len(target), _ignore, _ignore)
        before_s = time.process_time(), time.perf_counter()
        try:
            no_audit = str(Path(folder) / "audit.config")
            loadgen.StartTestWithLogSettings(system, samples, settings, log, no_audit)
            after_s = time.process_time(), time.perf_counter()
        finally:
            loadgen.DestroyQSL(samples)
            loadgen.DestroyFastSUT(system)
            target.close()
        said = _log(Path(folder) / "mlperf_log_detail.txt")
    return {
        **target.outcome(window=task["scenario"] == "offline"),
        "mean_ms": said["result_mean_latency_ns"] / 1e6,
        **{
            name: said[f"result_{percentile:.2f}_percentile_latency_ns"] / 1e6
            for name, percentile in _PERCENTILES.items()
        },
        "cut": _TOO_MANY in said.get("error_runtime", ""),
        "load_cpu_share": (after_s[0] - before_s[0]) / (after_s[1] - before_s[1]),
    }


def write_requests(folder: Path, requests: list[bytes], rows: list[int]) -> Path:
    """Write requests, and how many rows each has, as a process of this module reads them."""
    (folder / "requests.bin").write_bytes(b"".join(requests))
    sizes = [len(request) for request in requests]
    (folder / "requests.json").write_text(json.dumps({"sizes": sizes, "rows": rows}))
    return folder


@cache
def read_requests(folder: str) -> tuple[list[bytes], list[int]]:
    """Return the requests of a folder, and how many rows each has."""
    about = json.loads((Path(folder) / "requests.json").read_text())
    requests = []
    with (Path(folder) / "requests.bin").open("rb") as file:
        requests = [file.read(size) for size in about["sizes"]]
    return requests, about["rows"]


def _log(file: Path) -> dict[str, Any]:
    """Return what MLPerf's generator says in its log, the last of each key."""
    lines = file.read_text(errors="replace").splitlines()
    values = [json.loads(line.removeprefix(":::MLLOG ")) for line in lines if line]
    return {value["key"]: value["value"] for value in values}


def _ignore(_: list[int]) -> None:
    """Do nothing with samples: all requests are in memory."""


def main() -> None:
    """Do tasks until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.RLIM_INFINITY))
    # What the generator itself prints is no outcome.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(measure(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
