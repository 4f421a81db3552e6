"""What the operators of a step take on this machine, for the simulator: apart from each other.

Processes measure the same at the same time, as they share memory and caches in training too.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from dlrm.bench.batches import Ids
from dlrm.bench.operator_timing import ROUTED, dense, network, sparse
from dlrm.errors import ConfigError
from dlrm.ops.memory import keep_freed_memory
from dlrm.planning.network import Link, Network
from dlrm.planning.shards import Kind
from dlrm.planning.simulate import Curve, Operators, Rows, rising
from dlrm.planning.simulated import Devices
from dlrm.planning.tables import contents
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig, from_dict, to_dict

TABLES_BYTES = 250_000_000
"""Of tables that are measured on, in each process."""
MOST_PROCS = 4
"""That are measured at once."""


def here(
    config: TrainConfig, schema: Schema, cores: int, ids: Ids = "zipf"
) -> Callable[[int], Devices]:
    """Measure this machine; returns what a number of its processes, of one thread each, are like.

    Args:
        config: Of the run.
        schema: Of its data.
        cores: That the processes share.
        ids: How ids are drawn.

    """
    several = min(max(2, cores), MOST_PROCS)
    alone, _ = measure(config, schema, procs=1, threads=1, ids=ids)
    among, between = measure(config, schema, procs=several, threads=1, ids=ids)
    # Where processes share cores, messages wait for whoever computes.
    crowd = measure_network(2 * several)

    def devices(world: int) -> Devices:
        return Devices(
            alone if world == 1 else among,
            between if between and world <= several else crowd,
            # Who sends keeps a core busy.
            overlap=False,
            slowdown=max(1.0, world / cores),
        )

    return devices


def measure(
    config: TrainConfig, schema: Schema, *, procs: int, threads: int, ids: Ids = "zipf"
) -> tuple[Operators, Network | None]:
    """Measure for some seconds.

    Args:
        config: Of the run.
        schema: Of its data.
        procs: Processes that measure at once, and exchange with each other.
        threads: Of each.
        ids: How ids are drawn.

    Returns:
        Of each process, and what is between them; None of one.

    Raises:
        ConfigError: A process has ended.

    """
    task = {"config": to_dict(config), "schema": schema.to_dict(), "ids": ids}
    said = _run(task, procs, threads)
    return _operators(said), _network(said) if procs > 1 else None


def measure_network(procs: int) -> Network:
    """Measure what is between processes of this machine, for a second or two."""
    return _network(_run({}, procs, 1))


def _run(task: dict[str, Any], procs: int, threads: int) -> list[dict[str, Any]]:
    """Let processes measure; returns what each says."""
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
                [sys.executable, "-P", "-m", "dlrm.bench.operators", str(threads)],
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
    return [json.loads(each) for each in said]


def _curve(said: list[dict[str, Any]], name: str) -> Curve:
    """Return the mean of what the processes measured."""
    each = [of[name] for of in said]
    points = zip(*each, strict=True)
    return rising([(at[0][0], sum(seconds for _, seconds in at) / len(at)) for at in points])


def _operators(said: list[dict[str, Any]]) -> Operators:
    def mean(name: str) -> float:
        return sum(of[name] for of in said) / len(said)

    dim = int(said[0]["dim"])
    routing: dict[Kind, Rows] = {
        kind: Rows(_curve(said, kind), dim) for kind in ROUTED if kind in said[0]
    }
    if "table" in routing:
        # Columns of tables travel as whole ones do.
        routing["column"] = routing["table"]
    return Operators(
        bottom=_curve(said, "bottom"),
        top=_curve(said, "top"),
        dense_update_s=mean("dense_update_s"),
        lookup=Rows(_curve(said, "lookup"), dim, mean("lookup_row_share")),
        update=Rows(_curve(said, "update"), dim, mean("update_row_share")),
        routing=routing,
    )


def _network(said: list[dict[str, Any]]) -> Network:
    world = len(said)
    exchanges = _link(_curve(said, "exchange").points, world, 1.0)
    return Network(exchanges, _link(_curve(said, "sum").points, world, 2 * (world - 1) / world))


def _link(points: Sequence[tuple[float, float]], world: int, factor: float) -> Link:
    """Return latency and bandwidth by which `Network` gives these times at this world."""
    (small, least), (large, most) = points[0], points[-1]
    slope = max(most - least, 1e-9) / (large - small)
    return Link(bandwidth=factor / slope, latency_s=least / (world - 1).bit_length())


def _all(config: TrainConfig, schema: Schema, ids: Ids, alone: Any) -> dict[str, Any]:
    """Measure everything that a process does by itself."""
    with torch.device("meta"):
        tables = contents(config.model.build(schema), config.optim.name).tables
    dim = max((table.dim for table in tables), default=1)
    most = max((table.num_embeddings for table in tables), default=1)
    row_bytes = max((table.row_bytes for table in tables), default=1)
    # A rank of several keeps as many rows less.
    sizes = [-(-table.num_embeddings // dist.get_world_size()) for table in tables]
    while most > 1 and sum(min(n, most) for n in sizes) * row_bytes > TABLES_BYTES:
        most = most * 4 // 5
    # A model without tables never asks what they take.
    kept = [min(n, most) for n in sizes] or [1]
    return dense(config, schema, alone) | sparse(config, kept, dim, ids, alone)


def main() -> None:
    """Be one process; its task comes as JSON on standard input."""
    task = json.loads(sys.stdin.read())
    keep_freed_memory()
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    world = dist.get_world_size()
    # Each has a group of its own, to do all that many do but wait for others.
    alone = [dist.new_group([rank]) for rank in range(world)][dist.get_rank()]
    measured: dict[str, Any] = {}
    if task:
        config, schema = from_dict(task["config"]), Schema.from_dict(task["schema"])
        measured = _all(config, schema, task["ids"], alone)
    if world > 1:
        measured |= network()
    print(json.dumps(measured), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
