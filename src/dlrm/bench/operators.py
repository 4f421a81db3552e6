"""What the operators of a step take on this machine, for the simulator: apart from each other.

Processes measure the same at the same time, as they share memory and caches in training too.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from dlrm.bench.batches import Ids
from dlrm.bench.pieces import ROUTED, dense, network, sparse
from dlrm.errors import ConfigError
from dlrm.ops.memory import keep_freed_memory
from dlrm.parallel.network import Link, Network
from dlrm.parallel.simulate import Curve, Operators, Rows, rising
from dlrm.parallel.tables import contents
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig, from_dict, to_dict

TABLES_BYTES = 250_000_000
"""Of tables that are measured on, in each process."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured."""

    operators: Operators
    network: Network | None
    """None of one process."""


def measure(
    config: TrainConfig, schema: Schema, *, procs: int, threads: int, ids: Ids = "zipf"
) -> Found:
    """Measure for some seconds.

    Args:
        config: Of the run.
        schema: Of its data.
        procs: Processes that measure at once, and exchange with each other.
        threads: Of each.
        ids: How ids are drawn.

    Raises:
        ConfigError: A process has ended.

    """
    task = {
        "config": to_dict(config),
        "schema": schema.to_dict(),
        "threads": threads,
        "ids": ids,
    }
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    processes = []
    for rank in range(procs):
        world = {
            "RANK": rank,
            "WORLD_SIZE": procs,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "OMP_NUM_THREADS": threads,
            "TORCH_CPP_LOG_LEVEL": "ERROR",
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "dlrm.bench.operators"],
                env={**os.environ, **{name: str(value) for name, value in world.items()}},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(task))
        process.stdin.close()
    said = [process.stdout.read() if process.stdout else "" for process in processes]
    for process in processes:
        process.wait(30)
        if process.stdout:
            process.stdout.close()
    if any(process.returncode for process in processes):
        raise ConfigError("a process that measured has ended, see above")
    return _found([json.loads(each) for each in said])


def _found(said: list[dict[str, Any]]) -> Found:
    """Put together what the processes measured: the mean of them."""

    def curve(name: str) -> Curve:
        each = [said_one[name] for said_one in said]
        return rising(
            [(x, sum(of[i][1] for of in each) / len(each)) for i, (x, _) in enumerate(each[0])]
        )

    def mean(name: str) -> float:
        return sum(of[name] for of in said) / len(said)

    dim = int(said[0]["dim"])
    kinds = [kind for kind in ROUTED if kind in said[0]]
    # Columns of tables travel as whole ones do.
    routing = {kind: Rows(curve(kind), dim) for kind in kinds}
    if "table" in routing:
        routing["column"] = routing["table"]
    operators = Operators(
        bottom=curve("bottom"),
        top=curve("top"),
        dense_update_s=mean("dense_update_s"),
        lookup=Rows(curve("lookup"), dim, mean("lookup_row_share")),
        update=Rows(curve("update"), dim, mean("update_row_share")),
        routing=routing,
    )
    if len(said) == 1:
        return Found(operators, None)
    world = len(said)
    exchanges = _link(curve("exchange").points, world, 1.0)
    sums = _link(curve("sum").points, world, 2 * (world - 1) / world)
    return Found(operators, Network(exchanges, sums))


def _link(points: Sequence[tuple[float, float]], world: int, factor: float) -> Link:
    """Return latency and bandwidth by which `Network` gives these times at this world."""
    (small, least), (large, most) = points[0], points[-1]
    slope = max(most - least, 1e-9) / (large - small)
    return Link(bandwidth=factor / slope, latency_s=least / (world - 1).bit_length())


def main() -> None:
    """Be one process; its task comes as JSON on standard input."""
    task = json.loads(sys.stdin.read())
    config, schema = from_dict(task["config"]), Schema.from_dict(task["schema"])
    keep_freed_memory()
    torch.set_num_threads(task["threads"])
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    world = dist.get_world_size()
    # Each has a group of its own, to do all that many do but wait for others.
    alone = [dist.new_group([rank]) for rank in range(world)][dist.get_rank()]
    with torch.device("meta"):
        tables = contents(config.model.build(schema), config.optim.name).tables
    dim = max((table.dim for table in tables), default=1)
    most = max((table.rows for table in tables), default=1)
    row_bytes = max((table.row_bytes for table in tables), default=1)
    # A rank of several keeps as many rows less.
    rows = [-(-table.rows // world) for table in tables]
    while most > 1 and sum(min(n, most) for n in rows) * row_bytes > TABLES_BYTES:
        most = most * 4 // 5
    found = dense(config, schema, alone)
    if tables:
        found |= sparse(config, [min(n, most) for n in rows], dim, task["ids"], alone)
    if world > 1:
        found |= network()
    print(json.dumps(found), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
