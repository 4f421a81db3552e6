"""Processes that make load, as seen from the process that asks for it: tasks in, outcomes out."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any, Literal, Self

from dlrm.errors import ConfigError, MissingExtraError

Scenario = Literal["server", "single", "offline"]
"""Arrivals of Poisson; one query after the other; all at once."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where queries go."""

    host: str
    port: int
    connections: int
    """Requests under way at once; others wait, and their latency counts."""
    requests: str
    """Folder that `generator.write_requests` wrote."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """Load that is to be made."""

    scenario: Scenario
    seconds: float
    rate: float = 1.0
    """Queries a second that arrive in `server`; in `offline` all of `seconds` are there at once."""
    seed: int = 0
    """Of the arrivals and of the requests that are drawn."""
    limit_ms: float = 0.0
    """Latency beyond which a run in `server` is cut short, as far as most of it lies there; 0 for
    none."""
    target: Target | None = None
    """None for nothing: each query ends where it begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What became of a load; latencies in milliseconds, counted from when a query was due."""

    requests: int
    failed: int
    """Requests without an answer with status 200."""
    requests_per_s: float
    """Of those that were answered; in `offline` of the first `seconds`."""
    rows_per_s: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    cut: bool
    """Whether so many queries waited that the rest were not sent."""
    load_cpu_share: float
    """Part of a core that the process which made the load took."""

    def to_dict(self) -> dict[str, Any]:
        """Return what belongs in a row of results, JSON-ready."""
        return asdict(self)


class Generator:
    """A process that makes load; MLPerf's generator is one a process.

    Raises:
        MissingExtraError: MLPerf's generator is not installed.

    """

    def __init__(self) -> None:
        if find_spec("mlperf_loadgen") is None:
            raise MissingExtraError("MLPerf's load generator", "loadgen")
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dlrm.bench.load.generator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C is for who asks for load, who ends this.
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self, task: Task) -> None:
        """Begin to make load."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(asdict(task)) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            # It is said where the outcome is asked for.
            return

    def outcome(self) -> Outcome:
        """Return the outcome of the task that was begun, at its end.

        Raises:
            ConfigError: The process has ended; says why.

        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            _, complaint = self._process.communicate()
            lines = complaint.strip().splitlines()
            why = lines[-1] if lines else f"status {self._process.returncode}"
            raise ConfigError(f"the process that makes load has ended: {why}")
        return Outcome(**json.loads(line))

    def run(self, task: Task) -> Outcome:
        """Make load, and return its outcome; see `outcome`."""
        self.begin(task)
        return self.outcome()


@contextmanager
def generators(count: int) -> Iterator[list[Generator]]:
    """Yield several generators, which end with the block."""
    with ExitStack() as stack:
        yield [stack.enter_context(Generator()) for _ in range(count)]


def together(makers: Sequence[Generator], tasks: Sequence[Task]) -> list[Outcome]:
    """Make several loads at once, each by a process of its own, and return their outcomes."""
    for maker, task in zip(makers, tasks, strict=False):
        maker.begin(task)
    return [maker.outcome() for maker, _ in zip(makers, tasks, strict=False)]
