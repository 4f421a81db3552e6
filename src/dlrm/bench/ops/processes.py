"""Candidates that take several processes, timed by each of them; the first one's figures count.

python -m dlrm.bench.ops.processes        as one of them; its task comes as JSON
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from dlrm.bench.ops.operator import Stock
from dlrm.bench.ops.setting import Setting
from dlrm.bench.ops.timed import Candidate, Outcome, Tick, measure
from dlrm.bench.timer import Timing
from dlrm.ops.memory import keep_freed_memory
from dlrm.parallel.world import World

MODULE = ["-P", "-m", "dlrm.bench.ops.processes"]


def measure_apart(candidates: Sequence[Candidate], rounds: int, tick: Tick) -> list[Outcome]:
    """Time candidates in fresh processes; as `timed.measure`.

    Where these end before their time, each candidate gets processes of its own, so that one that
    fails does not take the others with it.
    """
    said = _run(candidates, rounds)
    if isinstance(said, list):
        tick(len(candidates) * (rounds + 1))
        return [_outcome(*pair) for pair in zip(candidates, said, strict=True)]
    if len(candidates) > 1:
        return [measure_apart([each], rounds, tick)[0] for each in candidates]
    tick(rounds + 1)
    return [Outcome(candidates[0], error=said)]


def _outcome(candidate: Candidate, said: dict[str, list[float]]) -> Outcome:
    return Outcome(candidate, Timing("cold", said["cold"]), Timing("warm", said["warm"]))


def _run(candidates: Sequence[Candidate], rounds: int) -> list[Any] | str:
    """Return what the first process says of each candidate, or why one has ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    count = candidates[0].operator.processes
    task = json.dumps({"rounds": rounds, "candidates": [each.to_dict() for each in candidates]})
    common = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, *MODULE],
            env={
                **os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank),
                "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]  # fmt: skip
    try:
        for process in processes:
            assert process.stdin is not None
            # One that ended at once is heard below.
            with suppress(BrokenPipeError):
                process.stdin.write(task)
                process.stdin.close()
            process.stdin = None
        said = [process.communicate() for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, complaint) in zip(processes, said, strict=True):
        if process.returncode:
            lines = complaint.strip().splitlines()
            return lines[-1] if lines else f"a process ended with {process.returncode}"
    return json.loads(said[0][0].splitlines()[-1])


def main() -> None:
    """Be one process."""
    # The catalogue names the operators, which stand below this file.
    from dlrm.bench.ops import OPERATORS

    task = json.loads(sys.stdin.read())
    keep_freed_memory()
    candidates = [
        Candidate(
            OPERATORS[each["operator"]],
            Setting(**{**each["setting"], "widths": tuple(each["setting"]["widths"])}),
        )
        for each in task["candidates"]
    ]
    with World.from_environment("gloo") as world, Stock(world) as stock:
        found = measure(candidates, stock, task["rounds"], lambda count: None)
        if world.first:
            seconds = [
                {"cold": each.cold.seconds, "warm": each.warm.seconds}
                for each in found
                if each.cold and each.warm
            ]
            print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
