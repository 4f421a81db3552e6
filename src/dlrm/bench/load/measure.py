"""What is measured of a server: a plan in, values of rows of results out, one after the other.

    floor      what the generator itself does, and the same client at a path that does nothing
    single     one request after the other         offline   all at once: what the server can do
    server     requests that arrive at random, over a curve of rates
    largest    the largest such rate within a latency, see `dlrm.bench.load.search`
    grid       batch size against delay            beside    models beside each other

Each row says in `what` which of these it is.
"""

from collections import abc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import combinations_with_replacement
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dlrm.bench.load.client import request
from dlrm.bench.load.driver import Generator, Outcome, Target, Task, generators, together
from dlrm.bench.load.generator import write_requests
from dlrm.bench.load.requests import Sizes, infer_body, requests_of, rows_of
from dlrm.bench.load.search import Search, search
from dlrm.bench.load.system import System
from dlrm.bench.watch import Watch
from dlrm.run import Run

Values = dict[str, Any]

FLOOR_S = 1.0
"""Seconds, at most, of each run that measures the generator and the client alone."""
FLOOR_RATE = 1000.0
"""Queries a second at which the generator's own latency is measured."""
PROBE_S = 0.3
PROBE_RATE = 500.0
"""Seconds and requests a second of the first runs of a server, which are not counted."""
MORE = 1.3
"""Requests of an offline run, as a multiple of those that the run before has answered in its time:
enough for all of it."""
FIRST = 0.8
"""Share of the offline rate at which the search begins."""
CURVE = (0.2, 0.4, 0.6, 0.8, 0.95)
"""Shares of the offline rate that make the curve, beside those of the search."""
GRID_SHARE = 0.5
"""Share of the first setting's offline rate at which the latencies of a grid are measured."""
BESIDE_SHARE = 0.25
"""Share of each model's own offline rate at which it is measured beside another."""
LIVE = "/v2/health/live"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be measured."""

    models: dict[str, Path]
    """Run directories by the names they are served by."""
    sizes: Sequence[str] = ("1",)
    """Rows of a request, see `Sizes.parse`."""
    limits_ms: Sequence[float] = (60.0,)
    """Latencies within which the largest rate is searched."""
    settings: Sequence[tuple[int, float]] = ((1024, 0.0),)
    """The server's rows of a batch and milliseconds of delay; several are a grid."""
    rates: Sequence[int] = ()
    """Requests a second of the curve; none for shares of what the server can do."""
    procs: int = 0
    """Server processes that several models are spread over; 0 for one each."""
    seconds: float = 3.0
    """Of each run."""
    trials: int = 10
    """Runs of a search at most; 0 for no search."""
    connections: int = 64
    """Requests under way at once."""
    server: Sequence[str] = ()
    """More arguments of `dlrm serve`."""
    seed: int = 0

    @property
    def runs(self) -> int:
        """How many times load is made, at most."""
        each = 4 + (len(self.rates) or len(CURVE)) + self.trials * len(self.limits_ms)
        count = 6 + each * len(self.models) * len(self.sizes)
        if len(self.settings) > 1:
            count += 4 * len(self.settings)
        if len(self.models) > 1:
            count += 3 * (len(self.models) + len(_groups(list(self.models))))
        return count


@dataclass(slots=True)
class _Measurement:
    """A plan under way."""

    plan: Plan
    makers: list[Generator]
    folder: Path
    tick: Callable[[int], object]
    requests: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    """Name and sizes -> folder of requests, and whose rows they have: `own` or `random`."""
    capacity: dict[tuple[str, str], float] = field(default_factory=dict)
    """Name and sizes -> requests a second offline."""

    def floor(self) -> Iterator[Values]:
        """Measure the generator without a client."""
        seconds = min(self.plan.seconds, FLOOR_S)
        with Watch() as watch:
            fastest = self.run(Task(scenario="single", seconds=seconds / 2))
            due = self.run(Task(scenario="server", seconds=seconds, rate=FLOOR_RATE))
        figures = due.to_dict() | {"requests_per_s": fastest.requests_per_s}
        del figures["rows_per_s"]
        yield {"what": "floor", "of": "generator", **figures, **watch.seen.to_dict()}

    def http_floor(self, system: System) -> Iterator[Values]:
        """Measure the client at a path that does nothing."""
        folder = self.folder / "live"
        folder.mkdir()
        write_requests(folder, [request("localhost", LIVE)], [0])
        seconds = min(self.plan.seconds, FLOOR_S)
        target = self.target(system, str(folder))
        with Watch() as watch:
            single = self.run(Task(scenario="single", seconds=seconds / 2, target=target))
            offline = self.offline(target, seconds)
        figures = single.to_dict() | {"requests_per_s": offline.requests_per_s}
        del figures["rows_per_s"]
        self.capacity[LIVE, ""] = offline.requests_per_s
        yield {"what": "floor", "of": "http", **figures, **watch.seen.to_dict()}

    def alone(self, name: str, system: System) -> Iterator[Values]:
        """Measure a model on a server of its own."""
        plan = self.plan
        for sizes in plan.sizes:
            target = self.target(system, self.prepared(name, sizes))
            about = self.about(name, sizes, plan.settings[0])
            with Watch() as watch:
                offline = self.offline(target, plan.seconds)
            self.capacity[name, sizes] = offline.requests_per_s
            yield {"what": "offline", **about, **offline.to_dict(), **watch.seen.to_dict()}
            with Watch() as watch:
                single = self.run(Task(scenario="single", seconds=plan.seconds, target=target))
            yield {"what": "single", **about, **single.to_dict(), **watch.seen.to_dict()}
            shares = [share * offline.requests_per_s for share in CURVE]
            for rate in plan.rates or shares:
                yield self.arrivals(target, about, float(rate), max(plan.limits_ms), plan.seed)
            start = FIRST * offline.requests_per_s
            for limit_ms in sorted(plan.limits_ms) if plan.trials else ():
                for row in self.largest(target, about, limit_ms, offline, start):
                    # What is held within one latency is held within a longer one.
                    start = row.get("largest_per_s") or start
                    yield row

    def largest(
        self, target: Target, about: Values, limit_ms: float, offline: Outcome, start: float
    ) -> Iterator[Values]:
        """Search the largest rate within a latency, from a rate on."""
        runs: list[Values] = []

        def measure(rate: float, trial: int) -> bool:
            seed = self.plan.seed + 1 + trial
            # A rate may be tried again: such runs are told apart by this.
            one = {**about, "within": f"{limit_ms:g} ms", "trial": trial}
            runs.append(self.arrivals(target, one, rate, limit_ms, seed))
            return _within(runs[-1], limit_ms)

        with Watch() as watch:
            most = self.capacity[LIVE, ""]
            done = search(measure, start, most=most, runs=self.plan.trials)
        self.tick(self.plan.trials - len(runs))
        yield from runs
        rows = offline.rows_per_s / max(offline.requests_per_s, 1e-9)
        yield {
            "what": "largest",
            **about,
            "within": f"{limit_ms:g} ms",
            **_answer(done, rows),
            "trials": [
                {"rate": trial.rate, "held": trial.held, "p99_ms": run["p99_ms"]}
                for trial, run in zip(done.trials, runs, strict=True)
            ],
            **watch.seen.to_dict(),
        }

    def arrivals(
        self, target: Target, about: Values, rate: float, limit_ms: float, seed: int
    ) -> Values:
        """Measure requests that arrive at random."""
        task = Task(
            scenario="server",
            seconds=self.plan.seconds,
            rate=rate,
            limit_ms=limit_ms,
            seed=seed,
            target=target,
        )
        with Watch() as watch:
            outcome = self.run(task)
        return {
            "what": "server",
            **about,
            "rate": round(rate),
            **outcome.to_dict(),
            **watch.seen.to_dict(),
        }

    def grid(self) -> Iterator[Values]:
        """Measure the first model with each setting of the server."""
        plan = self.plan
        name, sizes = next(iter(plan.models)), plan.sizes[0]
        rate = GRID_SHARE * self.capacity[name, sizes]
        for setting in plan.settings:
            with System(self.words([name], setting)) as system, Watch() as watch:
                target = self.target(system, self.prepared(name, sizes))
                offline = self.offline(target, plan.seconds)
                about = self.about(name, sizes, setting)
                row = self.arrivals(target, about, rate, max(plan.limits_ms), plan.seed)
            # The rate follows from what the server can do, and is no setting.
            del row["rate"]
            yield {
                **row,
                "what": "grid",
                "offered": rate,
                "requests_per_s": offline.requests_per_s,
                "rows_per_s": offline.rows_per_s,
                **watch.seen.to_dict(),
            }

    def beside(self) -> Iterator[Values]:
        """Measure each model by itself, beside each other one and a second of its own, and all."""
        names = list(self.plan.models)
        alone: dict[str, tuple[Outcome, Outcome]] = {}
        for group in [[name] for name in names] + _groups(names):
            with Watch() as watch:
                pairs = self.loaded(group)
            for place, (name, (offline, arrived)) in enumerate(zip(group, pairs, strict=True)):
                if len(group) == 1:
                    alone[name] = offline, arrived
                    continue
                others = [*group[:place], *group[place + 1 :]]
                whole, quick = alone[name]
                sizes = self.plan.sizes[0]
                yield {
                    "what": "beside",
                    **self.about(name, sizes, self.plan.settings[0]),
                    "beside": ", ".join(others),
                    "processes": self.processes(len(group)),
                    "offered": BESIDE_SHARE * self.capacity[name, sizes],
                    **arrived.to_dict(),
                    "requests_per_s": offline.requests_per_s,
                    "rows_per_s": offline.rows_per_s,
                    "slowdown": whole.requests_per_s / max(offline.requests_per_s, 1e-9),
                    "p50_slowdown": arrived.p50_ms / max(quick.p50_ms, 1e-9),
                    "p99_slowdown": arrived.p99_ms / max(quick.p99_ms, 1e-9),
                    **watch.seen.to_dict(),
                }

    def loaded(self, group: Sequence[str]) -> list[tuple[Outcome, Outcome]]:
        """Load models at once: with all that they can do, and with arrivals of a share of it."""
        plan, sizes = self.plan, self.plan.sizes[0]
        count = self.processes(len(group))
        with ExitStack() as stack:
            systems = [
                stack.enter_context(System(self.words(group[start::count], plan.settings[0])))
                for start in range(count)
            ]
            targets = [
                self.target(systems[place % count], self.prepared(name, sizes))
                for place, name in enumerate(group)
            ]
            capacities = [self.capacity[name, sizes] for name in group]
            probes = [
                Task(scenario="offline", seconds=PROBE_S, rate=PROBE_RATE, target=target)
                for target in targets
            ]
            self.all(probes)
            offline = [
                replace(probe, seconds=plan.seconds, rate=MORE * capacity)
                for probe, capacity in zip(probes, capacities, strict=True)
            ]
            arrivals = [
                replace(
                    task,
                    scenario="server",
                    rate=BESIDE_SHARE * capacity,
                    seed=plan.seed + place,
                )
                for place, (task, capacity) in enumerate(zip(offline, capacities, strict=True))
            ]
            return list(zip(self.all(offline), self.all(arrivals), strict=True))

    def processes(self, models: int) -> int:
        """Return over how many server processes so many models are spread."""
        return min(self.plan.procs or models, models)

    def offline(self, target: Target, seconds: float) -> Outcome:
        """Measure what a server can do, which two short runs find out roughly first."""
        task = Task(scenario="offline", seconds=PROBE_S, rate=PROBE_RATE, target=target)
        for length in (PROBE_S, seconds):
            outcome = self.run(task)
            task = replace(task, rate=MORE * outcome.requests_per_s + 1, seconds=length)
        return self.run(task)

    def run(self, task: Task) -> Outcome:
        """Make load by one process."""
        return self.all([task])[0]

    def all(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Make several loads at once."""
        outcomes = together(self.makers, tasks)
        self.tick(1)
        return outcomes

    def prepared(self, name: str, sizes: str) -> str:
        """Return the folder of requests to a model; written where it is not there."""
        if (name, sizes) not in self.requests:
            run = Run.open(self.plan.models[name])
            rng = np.random.default_rng(self.plan.seed)
            rows, own = rows_of(run, rng)
            folder = self.folder / f"requests-{len(self.requests)}"
            folder.mkdir()
            path = f"/v2/models/{name}/infer"
            requests, counts = requests_of(rows, run.schema, Sizes.parse(sizes), path, rng)
            write_requests(folder, requests, counts)
            self.requests[name, sizes] = str(folder), "own" if own else "random"
        return self.requests[name, sizes][0]

    def target(self, system: System, folder: str) -> Target:
        """Return a server as a target of load."""
        return Target(system.host, system.port, self.plan.connections, folder)

    def words(self, names: Sequence[str], setting: tuple[int, float]) -> list[str]:
        """Return the arguments of `dlrm serve` for some models; one twice is loaded once."""
        batch, delay_ms = setting
        runs = [f"{name}={self.plan.models[name]}" for name in dict.fromkeys(names)]
        limits = ["--limits.batch", str(batch), "--limits.delay-s", f"{delay_ms / 1000:g}"]
        return [*runs, *limits, *self.plan.server]

    def about(self, name: str, sizes: str, setting: tuple[int, float]) -> Values:
        """Return the settings that each row says."""
        self.prepared(name, sizes)
        return {
            "model": name,
            "sizes": sizes,
            "batch": setting[0],
            "delay": f"{setting[1]:g} ms",
            "connections": self.plan.connections,
            "server": " ".join(self.plan.server) or None,
            "data": self.requests[name, sizes][1],
            "length": f"{self.plan.seconds:g} s",
        }


def measure(plan: Plan, tick: Callable[[int], object]) -> abc.Generator[Values, None, None]:
    """Yield what is measured, as values of rows of the suite `serve`; see `Plan`.

    Servers and the processes that make load end with the iterator, or where it is closed.

    Args:
        plan: What is to be measured.
        tick: Told how many of `plan.runs` are done.

    Raises:
        MissingExtraError: MLPerf's generator is not installed.
        ConfigError: A server cannot be started, or refuses a request.
        RunError: A run cannot be opened.

    """
    with (
        TemporaryDirectory(prefix="dlrm-bench-serve-") as folder,
        generators(1 if len(plan.models) == 1 else max(2, len(plan.models))) as makers,
    ):
        measurement = _Measurement(plan, makers, Path(folder), tick)
        yield from measurement.floor()
        for place, name in enumerate(plan.models):
            with System(measurement.words([name], plan.settings[0])) as system:
                _check(system, name, plan.models[name])
                if place == 0:
                    yield from measurement.http_floor(system)
                yield from measurement.alone(name, system)
        if len(plan.settings) > 1:
            yield from measurement.grid()
        if len(plan.models) > 1:
            yield from measurement.beside()


def _check(system: System, name: str, path: Path) -> None:
    """Send one row, for a refusal to be said before anything is measured; see `System.check`."""
    run = Run.open(path)
    rows, _ = rows_of(run, np.random.default_rng(0))
    body, length = infer_body(rows.slice(0, 1), run.schema)
    headers = {"inference-header-content-length": str(length)}
    system.check(f"/v2/models/{name}/infer", body, headers)


def _groups(names: Sequence[str]) -> list[list[str]]:
    """Return which models are loaded beside each other: pairs, also of one twice, and all."""
    pairs = [list(pair) for pair in combinations_with_replacement(names, 2)]
    return [*pairs, *([list(names)] if len(names) > 2 else [])]


def _within(row: Values, limit_ms: float) -> bool:
    return not row["failed"] and not row["cut"] and row["p99_ms"] <= limit_ms


def _answer(done: Search, rows: float) -> Values:
    """Return what a search found, for requests of so many rows in the mean."""
    low, high = done.low(), done.high()
    return {
        "verdict": done.verdict,
        "largest_per_s": low,
        "largest_per_s_low": low,
        "largest_per_s_high": high,
        "rows_per_s": None if low is None else low * rows,
        "held_runs": float(done.runs(low)),
    }
