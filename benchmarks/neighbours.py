"""How fast do training steps go on beside other programs? Alone, beside busy ones, and two at once.

    python benchmarks/neighbours.py

Steps of the demo's model at batch 512 run in a process of their own: alone, by one thread alone,
beside one process that computes without end, beside one such for each core, and beside a second run
of the same steps. Each time is also told as how many times that of the round alone. Beside one busy
process a core, nobody can be faster than twice that. The same steps by plain torch stand beside.
Goals: at most 2.3 times as long beside one busy process a core, and for each of two runs at once;
two threads 1.5 times as fast as one.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from dlrm import cores, terminal
from dlrm.bench.results import append
from dlrm.bench.timer import figures, interleave, ratio
from dlrm.nn import precision
from workers import Task, Workers

BATCH, STEPS = 512, 300
BUSY = "while True: pass"
SETTLE_S = 0.2
"""Given to busy processes, which take a moment to begin, and to those that end."""
WORDS = {
    "alone": "alone",
    "one_thread": "one thread, alone",
    "one_busy": "beside one busy process",
    "busy_cores": "beside one busy process a core",
    "two_runs": "two runs at once, each",
}
"""Circumstances -> what they are called."""
GOALS = {"busy_cores": 2.3, "two_runs": 2.3}
"""Circumstances -> how many times as long as alone steps may take."""
THREADS_GOAL = 1.5


class Neighbours:
    """A context of busy processes, as many as `be` says; they end with it."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Neighbours":
        return self

    def __exit__(self, *error: object) -> None:
        self.be(0)

    def be(self, count: int) -> None:
        """Let so many processes compute from now on."""
        if count == len(self._processes):
            return
        while len(self._processes) > count:
            process = self._processes.pop()
            process.kill()
            process.wait()
        while len(self._processes) < count:
            self._processes.append(subprocess.Popen([sys.executable, "-c", BUSY]))
        time.sleep(SETTLE_S)


def measure(kernels: str, given: argparse.Namespace) -> dict[str, Any]:
    """Time steps in all circumstances, and return a row of results."""
    threads = cores.count()
    task = Task(
        procs=1,
        threads=threads,
        batch_size=given.batch,
        arch="demo",
        optim="rowwise_adagrad",
        precision=precision.resolve("auto"),
        kernels=kernels,
    )
    alone = Task(**{**vars(task), "threads": 1})
    steps = given.steps
    with ExitStack() as stack:
        first, second, single = (stack.enter_context(Workers(each)) for each in (task, task, alone))
        neighbours = stack.enter_context(Neighbours())
        pool = stack.enter_context(ThreadPoolExecutor(2))

        def both() -> None:
            list(pool.map(lambda run: run.steps(steps), (first, second)))

        candidates: dict[str, Callable[[], object]] = {
            "alone": lambda: first.steps(steps),
            "one_thread": lambda: single.steps(steps),
            "one_busy": lambda: first.steps(steps),
            "busy_cores": lambda: first.steps(steps),
            "two_runs": both,
        }
        busy = {**dict.fromkeys(candidates, 0), "one_busy": 1, "busy_cores": threads}
        took = interleave(
            candidates,
            rounds=given.rounds,
            before={name: lambda count=count: neighbours.be(count) for name, count in busy.items()},
        )
    row: dict[str, Any] = {
        "batch_size": given.batch,
        "kernels": kernels,
        "precision": task.precision,
        "steps": steps,
    }
    for name, timing in took.items():
        row |= figures(timing.per(steps))
        middle, low, high = ratio(timing, took["alone"])
        row |= {f"{name}_ratio": middle, f"{name}_ratio_interval": [low, high]}
    return row


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--kernels", default="cpu,reference", help="cpu is ours, reference torch's")
    flags.add_argument("--batch", type=int, default=BATCH)
    flags.add_argument("--steps", type=int, default=STEPS, help="of a round")
    flags.add_argument("--rounds", type=int, default=7)
    flags.add_argument("--quick", action="store_true", help="few steps: does it work at all?")
    given = flags.parse_args(list(words))
    if given.quick:
        given.batch, given.steps, given.rounds = 8, 2, 1
    grid = terminal.table("Steps beside neighbours", "", "ms", "times as long as alone", "goal")
    path = given.out
    for kernels in given.kernels.split(","):
        row = measure(kernels, given)
        for name, words_of in WORDS.items():
            low, high = row[f"{name}_ratio_interval"]
            grid.add_row(
                f"{'ours' if kernels == 'cpu' else 'torch'}, {words_of}",
                f"{row[f'{name}_ms']:.2f}",
                f"{row[f'{name}_ratio']:.2f} ({low:.2f} to {high:.2f})",
                f"at most {GOALS[name]}" if name in GOALS else f"at least {THREADS_GOAL}"
                if name == "one_thread" else "",
            )  # fmt: skip
        path = append("neighbours", row, given.out)
    Console().print(grid)
    print(f"Saved: {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
