"""`dlrm bench serve`: a server under load."""

import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import product
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from tyro.conf import arg

from dlrm import terminal
from dlrm.bench import results
from dlrm.bench.load.measure import Plan, measure
from dlrm.bench.load.requests import Sizes
from dlrm.errors import ConfigError, UsageError
from dlrm.planning.quantities import counts, words
from dlrm.reporting import bench as page
from dlrm.reporting.bench_rows import Row
from dlrm.reporting.bench_serve import WAYS, Load, called, floors, loads, most_disturbed, sentences
from dlrm.reporting.words import rate

LEAST_S = 0.05
"""Seconds of a run that hold any request at all."""


def bench_serve(
    runs: Annotated[Sequence[str], tyro.conf.Positional, arg(metavar="RUN [RUN ...]")],
    *,
    sizes: str = "1",
    latency_ms: str = "60",
    rates: str = "",
    batch: str = "1024",
    delay_ms: str = "0",
    procs: int = 0,
    seconds: float = 3.0,
    trials: int = 10,
    connections: int = 64,
    server: Annotated[str, arg(metavar="FLAGS")] = "",
    seed: int = 0,
    out: Path | None = None,
    html: Path | None = None,
) -> "ServeBenchResult":
    """Measure a server under load: how much it does, how long requests take, at which rate.

    It starts `dlrm serve` on a free port and loads it from another process with MLPerf's own
    generator: all requests at once; one after the other; and at random, as Poisson's, over a curve
    of rates, with latencies counted from when each request was due. It then searches the largest
    rate whose p99 stays within a latency, and repeats the answer. What the generator and the client
    take by themselves stands beside the figures. Nothing else may compute meanwhile.

      dlrm bench serve RUN --sizes 1,64,mlperf --latency-ms 60,80
      dlrm bench serve RUN --batch 16,256,4096 --delay-ms 0,1,5    # a grid
      dlrm bench serve RUN RUN                                     # co-location

    Args:
        runs: Run directories, or NAME=RUN.
        sizes: Rows of a request: a number, lognormal:64 (of that median), mlperf (100 to 700).
        latency_ms: Latencies within which p99 must stay; MLPerf's are 60 and 80.
        rates: Requests a second of the curve; shares of what the server can do if not given.
        batch: Rows of the server's batches, --limits.batch; several are a grid.
        delay_ms: Longest wait for a batch, --limits.delay-s; several are a grid.
        procs: Server processes that several models are spread over; 0 for one each.
        seconds: Of each run; at least 20 times the latency, for a queue to show.
        trials: Runs of each search, at most; 0 for no search.
        connections: Requests under way at once; others wait in the client, and that counts.
        server: More flags of dlrm serve, as --server="--runtime onnx".
        seed: Of the arrivals, and of the rows that are asked about.
        out: Rows of results are appended to this file, as JSON lines.
        html: They are drawn as one page into this file.

    Raises:
        UsageError: No run is named.
        MissingExtraError: The extra `loadgen` or `serve` is not installed.
        RunError: A run has no model yet.
        ConfigError: A setting has no meaning, or the server ends or refuses a request.

    """
    named = [runs] if isinstance(runs, str | Path) else list(runs)
    if not named:
        raise UsageError("no run to serve: give at least one RUN")
    if seconds < LEAST_S or trials < 0 or connections < 1 or procs < 0:
        raise ConfigError(
            f"--seconds is {seconds:g}, --trials {trials}, --connections {connections} and --procs "
            f"{procs}: expected at least {LEAST_S}, 0, 1 and 0"
        )
    plan = Plan(
        models=_models(named),
        sizes=words(sizes),
        limits_ms=_numbers("latency-ms", latency_ms, above=0.0),
        rates=counts("rates", rates) if rates else (),
        settings=list(product(counts("batch", batch), _numbers("delay-ms", delay_ms))),
        procs=procs,
        seconds=seconds,
        trials=trials,
        connections=connections,
        server=shlex.split(server),
        seed=seed,
    )
    for word in plan.sizes:
        Sizes.parse(word)
    measured: list[dict[str, Any]] = []
    stopped = False
    bar = terminal.progress("now")
    task = bar.add_task("loading", total=plan.runs, now="")
    loading = closing(measure(plan, lambda count: bar.advance(task, count)))
    with _ended_by_sigterm(), bar, loading as rows:
        try:
            for values in rows:
                row = results.row("serve", values, seed=seed)
                measured.append(row)
                bar.update(task, now=WAYS[row["what"]])
                if out is not None:
                    results.save([row], out)
        except KeyboardInterrupt:
            if not measured:
                raise
            stopped = True
        bar.update(task, completed=plan.runs)
    if html is not None:
        page.write(html, measured)
    return ServeBenchResult(rows=measured, stopped=stopped, page=html)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeBenchResult:
    """A server under load."""

    rows: list[dict[str, Any]]
    """What was measured, of the suite `serve`."""
    stopped: bool
    """Whether the user stopped it."""
    page: Path | None = None

    @property
    def status(self) -> int:
        """Exit status, as of any command that the user stopped."""
        return 130 if self.stopped else 0

    @property
    def warning(self) -> str | None:
        """Why figures are doubtful: what the most disturbed run says."""
        worst = most_disturbed([Row(row) for row in self.rows])
        return worst[0].doubts or None if worst else None

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        rows = [Row(row) for row in self.rows]
        return {
            "verdict": " ".join(sentences(rows)),
            "floor": " ".join(floors(rows)),
            "stopped": self.stopped,
            "warning": self.warning,
            "report": str(self.page) if self.page else None,
            "rows": [
                {name: value if _finite(value) else None for name, value in row.items()}
                for row in self.rows
            ],
        }

    def __rich__(self) -> RenderableType:
        rows = [Row(row) for row in self.rows]
        parts: list[RenderableType] = []
        for load in loads(rows):
            parts += [_loads(load), ""]
        for what, columns in (("grid", ("batch", "delay")), ("beside", ("model", "beside"))):
            if shown := [row for row in rows if row.text("what") == what]:
                parts += [_neighbours(what, columns, shown), ""]
        if any(row.text("what") == "server" for row in rows):
            parts.append("ms: from when a request was due, in a queue or not.")
        parts += map(Text, [*floors(rows), *sentences(rows)])
        if any(row["failed"] for row in rows if isfinite(row["failed"])):
            parts.append(Text("Some requests failed.", style="bold"))
        if self.stopped:
            parts.append(Text("Stopped: the rest was not measured.", style="bold"))
        if self.warning:
            parts.append(Text(f"Doubtful: {self.warning}.", style="bold"))
        if self.page:
            parts.append(f"Page: {self.page}")
        return Group(*parts)


def _loads(load: Load) -> Table:
    grid = _table(load.title, "", "offered/s", "requests/s", "rows/s", "p50", "p99", "p99.9 ms")
    for row in load.rows:
        cut = row.values.get("cut")
        grid.add_row(
            WAYS[row.text("what")],
            rate(row["rate"]),
            rate(row["requests_per_s"]),
            rate(row["rows_per_s"]),
            *("cut short" if cut else rate(row[name]) for name in ("p50_ms", "p99_ms", "p999_ms")),
        )
    return grid


def _neighbours(what: str, columns: Sequence[str], rows: Sequence[Row]) -> Table:
    slower = ("slowdown", "p50_slowdown", "p99_slowdown") if what == "beside" else ()
    title = f"{called(rows[0])}: batch against delay" if what == "grid" else "Beside each other"
    heads = ("rows/s", "p99 ms", "offered/s", *(name.replace("_", " ") for name in slower))
    grid = _table(title, *columns, *heads)
    for row in rows:
        figures = (row["rows_per_s"], row["p99_ms"], row["offered"])
        grid.add_row(
            *map(row.text, columns),
            *map(rate, figures),
            *(f"{row[name]:.2f}" for name in slower),
        )
    return grid


def _table(title: str, *heads: str) -> Table:
    grid = Table(
        title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False,
        padding=(0, 0, 0, 1),
    )  # fmt: skip
    for place, head in enumerate(heads):
        first = place == 0
        grid.add_column(head, justify="left" if first else "right", no_wrap=first, overflow="fold")
    return grid


def _models(runs: Sequence[str | Path]) -> dict[str, Path]:
    """Return run directories by the names that they are served by."""
    models: dict[str, Path] = {}
    for word in map(str, runs):
        name, equals, path = word.partition("=")
        if not equals or Path(word).is_dir():
            name, path = Path(word).resolve().name, word
        if name in models:
            raise ConfigError(
                f'two runs are called "{name}": give one another name, as NAME={path}'
            )
        models[name] = Path(path)
    return models


def _numbers(name: str, text: str, *, above: float | None = None) -> list[float]:
    """Return numbers between commas, each once, not below 0."""
    numbers = []
    for word in words(text):
        try:
            number = float(word)
        except ValueError:
            number = -1.0
        if not isfinite(number) or number < 0 or number == above:
            raise ConfigError(f'--{name} is "{text}", expected milliseconds such as 60,80')
        numbers.append(number)
    return numbers


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an exception does: servers end, too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _finite(value: object) -> bool:
    return not isinstance(value, float) or isfinite(value)
