"""What the operators of a step take on this machine, for the simulator: apart from each other.

Processes measure the same at the same time, as they share memory and caches in training too.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket
from torch.nn.parallel import DistributedDataParallel

from dlrm.bench.batches import Ids, draw_ids, random_batch
from dlrm.errors import ConfigError
from dlrm.nn import precision
from dlrm.nn.embedding import Collection, EmbeddingCollection, Storage, made_by
from dlrm.ops.memory import keep_freed_memory
from dlrm.parallel.collection import ShardedCollection
from dlrm.parallel.exchange import Wire
from dlrm.parallel.network import Link, Network
from dlrm.parallel.shards import Kind, Shard
from dlrm.parallel.simulate import Curve, Operators, Rows, rising
from dlrm.parallel.tables import contents
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig, from_dict, to_dict
from dlrm.training.loop import compute_loss

SAMPLES = (128, 1024, 8192)
"""Of a process, that are measured with."""
EACH_S = 0.25
"""Of each measurement."""
LEAST_RUNS = 5
TABLES_BYTES = 250_000_000
"""Of tables that are measured on, in each process."""
EXCHANGED_BYTES = (1 << 10, 1 << 16, 1 << 20, 1 << 23)
ROUTED: tuple[Kind, ...] = ("table", "row")


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured."""

    operators: Operators
    network: Network | None
    """None of one process."""


class Given(Collection):
    """Tables that hand out the same vectors again and again, in no time."""

    def __init__(
        self,
        rows: Sequence[int],
        dim: int,
        names: Sequence[str] | None = None,
        *,
        storage: Storage = "fp32",
        draw: object = None,
    ):
        super().__init__(rows, dim, names)
        self._kept: dict[tuple[int, ...], Tensor] = {}

    def forward(
        self, ids: Tensor, offsets: Tensor | None = None, factors: Tensor | None = None
    ) -> Tensor:
        """Return vectors of the right shape."""
        samples = len(ids) if offsets is None else (len(offsets) - 1) // len(self.rows)
        return self._of((samples, len(self.rows), self.dim))

    def each(self, ids: Tensor, offsets: Tensor | None = None) -> Tensor:
        """Return vectors of the right shape."""
        return self._of((*ids.shape, self.dim))

    def _of(self, shape: tuple[int, ...]) -> Tensor:
        if shape not in self._kept:
            self._kept[shape] = torch.randn(shape).mul_(0.01).requires_grad_()
        found = self._kept[shape]
        found.grad = None
        return found


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


def _repeat(run: Callable[[], tuple[float, ...]]) -> list[float]:
    """Return the medians of the seconds that runs say, of some tenths of a second of them."""
    run()
    dist.barrier()
    said: list[tuple[float, ...]] = []
    began = time.perf_counter()
    while len(said) < LEAST_RUNS or time.perf_counter() - began < EACH_S:
        said.append(run())
    dist.barrier()
    return [median(values) for values in zip(*said, strict=True)]


def _dense(config: TrainConfig, schema: Schema, alone: Any) -> dict[str, Any]:
    """Measure everything but tables."""
    with made_by(Given):
        model = config.model.build(schema, precision.resolve(config.precision))
    optimizer = config.optim.build(model.parameters())
    net: nn.Module = model
    if dist.get_world_size() > 1:
        net = DistributedDataParallel(model, process_group=alone, gradient_as_bucket_view=True)
        # As `ParallelModel` has it: the mean over ranks would take time of its own.
        net.register_comm_hook(None, _as_it_is)
    bottom = deepcopy(getattr(model, "bottom", None))
    found: dict[str, Any] = {"bottom": [], "top": []}
    rng = np.random.default_rng(0)
    ones = [1] * len(schema.categorical)
    updates = []
    for size in SAMPLES:
        batch = random_batch(ones, size, "uniform", rng)
        batch = replace(batch, dense=torch.rand(size, len(schema.dense)))

        def below(dense: Tensor = batch.dense) -> tuple[float, ...]:
            if not isinstance(bottom, nn.Module):
                return (0.0,)
            began = time.perf_counter()
            x = bottom(dense)
            x.backward(torch.ones_like(x))
            return (time.perf_counter() - began,)

        def step(batch: Any = batch) -> tuple[float, ...]:
            began = time.perf_counter()
            logits = net(batch)
            compute_loss(config.loss, logits, batch.labels).backward()
            computed = time.perf_counter()
            optimizer.step()
            optimizer.zero_grad()
            return computed - began, time.perf_counter() - computed

        (first,) = _repeat(below)
        whole, update = _repeat(step)
        found["bottom"].append((size, first))
        found["top"].append((size, max(whole - first, 1e-6)))
        updates.append(update)
    return found | {"dense_update_s": median(updates)}


def _as_it_is(state: object, bucket: GradBucket) -> torch.futures.Future[Tensor]:
    done: torch.futures.Future[Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer())
    return done


def _sparse(config: TrainConfig, rows: list[int], dim: int, ids: Ids, alone: Any) -> dict[str, Any]:
    """Measure tables: lookups, updates, and what it costs to do so for others."""
    storage = config.model.tables.storage
    rng = np.random.default_rng(dist.get_rank())
    drawn = {size: torch.from_numpy(draw_ids(rows, size, ids, rng)) for size in SAMPLES}
    found: dict[str, Any] = {"lookup": [], "update": [], "dim": dim}
    plain = EmbeddingCollection(rows, dim, storage=storage)
    there = []
    for size, given in drawn.items():
        looked, back, updated = _train(config, plain, given)
        found["lookup"].append((size * len(rows), looked))
        found["update"].append((size * len(rows), back + updated))
        there.append(looked + back)
    narrow = EmbeddingCollection(rows, max(1, dim // 2), storage=storage)
    middle = SAMPLES[1]
    looked, back, updated = _train(config, narrow, drawn[middle])
    for name, half in (("lookup", looked), ("update", back + updated)):
        # A row costs r + d n: of half as long ones, r + d n / 2.
        share = 2 * half / found[name][1][1] - 1 if dim > 1 else 1.0
        found[f"{name}_row_share"] = min(1.0, max(0.0, share))
    del plain, narrow
    for kind in ROUTED if dist.get_world_size() > 1 else ():
        shards = [Shard(t, 0, 0, n, 0, dim) for t, n in enumerate(rows)]
        wire = Wire(0, 1, alone)
        spread = ShardedCollection(
            rows, dim, storage=storage, draw=lambda values, *_: values.zero_(),
            kinds=[kind] * len(rows), shards=shards, wire=wire,
        )  # fmt: skip
        found[kind] = []
        for (size, given), without in zip(drawn.items(), there, strict=True):
            wire.samples = (size,)
            looked, back, _ = _train(config, spread, given)
            found[kind].append((size * len(rows), max(looked + back - without, 1e-6)))
        del spread
    return found


def _train(config: TrainConfig, tables: Collection, ids: Tensor) -> list[float]:
    """Return the seconds of a lookup, of its gradient, and of an update."""
    optimizer = config.optim.build(tables.parameters())
    grad = torch.full((*ids.shape, tables.dim), 1e-6)

    def run() -> tuple[float, ...]:
        began = time.perf_counter()
        vectors = tables(ids)
        looked = time.perf_counter()
        vectors.backward(grad)
        back = time.perf_counter()
        optimizer.step()
        optimizer.zero_grad()
        return looked - began, back - looked, time.perf_counter() - back

    return _repeat(run)


def _network() -> dict[str, Any]:
    """Measure the exchange of all with all, and the sum, by bytes that leave and of the buffer."""
    world = dist.get_world_size()
    found: dict[str, Any] = {"exchange": [], "sum": []}
    for size in EXCHANGED_BYTES:
        values = torch.zeros(size // 4 // world * world)
        out = torch.zeros_like(values)
        runs = max(10, min(100, (1 << 26) // size))
        for name, act in (
            ("exchange", lambda values=values, out=out: dist.all_to_all_single(out, values)),
            ("sum", lambda values=values: dist.all_reduce(values)),
        ):
            seconds = []
            for _ in range(runs):
                began = time.perf_counter()
                act()
                seconds.append(time.perf_counter() - began)
            left = values.nbytes * (world - 1) / world if name == "exchange" else values.nbytes
            found[name].append((left, median(seconds)))
    return found


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
    found = _dense(config, schema, alone)
    if tables:
        found |= _sparse(config, [min(n, most) for n in rows], dim, task["ids"], alone)
    if world > 1:
        found |= _network()
    print(json.dumps(found), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
