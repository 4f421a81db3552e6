"""What is between processes of this machine: exchanges of all with all, and sums, measured.

python -m dlrm.bench.network        as one of several processes
"""

import json
import os
import time
from statistics import median

import torch
import torch.distributed as dist

from dlrm.bench.processes import answers
from dlrm.planning.costs import Device
from dlrm.planning.network import Link, Network
from dlrm.planning.simulate import Devices

EXCHANGED_BYTES = (1 << 10, 1 << 16, 1 << 20, 1 << 23)
MOST_PROCS = 4
"""Most processes that are measured at once."""

Points = list[tuple[float, float]]
"""Bytes that leave a process, or that are summed, and seconds; both rising."""


class Processes:
    """Processes of this machine, of one thread each, as devices of a simulation."""

    def __init__(self, device: Device, cores: int):
        self.device, self.cores = device, cores
        self.several = min(max(2, cores), MOST_PROCS)
        self.between = measure(self.several)
        # Where processes share cores, messages wait for whoever computes.
        self.crowd = measure(2 * self.several)

    def __call__(self, world: int) -> Devices:
        """Return so many processes as equal devices."""
        return Devices(
            self.device.shared(min(world, self.cores)),
            self.between if world <= self.several else self.crowd,
            # Who sends keeps a core busy.
            overlap=False,
            slowdown=max(1.0, world / self.cores),
        )


def measure(procs: int) -> Network:
    """Measure what is between so many processes, for a second or two."""
    return network(answers(["-m", "dlrm.bench.network"], procs, None))


def network(heard: list[dict[str, Points]]) -> Network:
    """Return the network by which processes found these times."""
    world = len(heard)
    exchanges, sums = (
        [
            (points[0][0], sum(seconds for _, seconds in points) / world)
            for points in zip(*(times[name] for times in heard), strict=True)
        ]
        for name in ("exchange", "sum")
    )
    return Network(_link(exchanges, world, 1.0), _link(sums, world, 2 * (world - 1) / world))


def _link(points: Points, world: int, factor: float) -> Link:
    """Return latency and bandwidth by which `Network` gives these times at this world."""
    (small, least), (large, most) = points[0], points[-1]
    slope = max(most - least, 1e-9) / (large - small)
    return Link(bandwidth=factor / slope, latency_s=max(least, 1e-9) / (world - 1).bit_length())


def main() -> None:
    """Be one process."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    dist.init_process_group("gloo")
    world = dist.get_world_size()
    measured: dict[str, Points] = {"exchange": [], "sum": []}
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
            measured[name].append((left, median(seconds)))
    print(json.dumps(measured), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
