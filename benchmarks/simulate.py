"""Does the simulator of `dlrm plan --simulate` say how long steps of several processes take?

    python benchmarks/simulate.py

Steps of one process of one thread are measured; those of 1, 2 and 4 such processes are predicted
from them and from what this machine can do, then taken. Goal: within 20%.

With --published, published steps of DLRM on 1, 8 and 16 GPUs instead. Rates of the described GPUs
are divided by what makes the step of one of them the published one.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from dlrm import cores as allowed
from dlrm import terminal
from dlrm.bench import speed, timer
from dlrm.bench.arch import ARCHS
from dlrm.bench.known import known
from dlrm.bench.network import Processes
from dlrm.bench.results import append
from dlrm.planning.costs import Device
from dlrm.planning.footprint import Data
from dlrm.planning.network import Link, Network
from dlrm.planning.planned import Planned, World, planned
from dlrm.planning.simulate import Devices, step_of
from dlrm.planning.times import calibrated
from dlrm.schema import Schema
from dlrm.training.config import TrainConfig
from workers import Task, Workers

ROUND_SAMPLES = 32_768
TOLERANCE = 0.2
PUBLISHED_BATCH = 65_536
PUBLISHED: dict[str, tuple[tuple[float, float, float], dict[int, float]]] = {
    "DGX-1 (V100, FP32)": ((15.7e12, 900e9, 150e9), {1: 0.52e6, 8: 2.27e6}),
    "DGX-2 (V100, FP32)": ((15.7e12, 900e9, 150e9), {1: 0.64e6, 8: 3.05e6, 16: 4.30e6}),
    "DGX A100 (TF32)": ((156e12, 2039e9, 300e9), {1: 1.99e6, 8: 8.41e6}),
}
"""Machine -> operations, bytes of memory and bytes of a link of a GPU, each a second; and samples a
second by how many of them train.

Source: NVIDIA, DeepLearningExamples, TensorFlow2/Recommendation/DLRM/README.md of March 2021,
"Training performance results"; rates of GPUs by their data sheets.
"""


def main(words: Sequence[str] = ()) -> None:
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    flags.add_argument("--out", type=Path, help="JSON lines are appended to this file")
    flags.add_argument("--batch", default="2048,16384")
    flags.add_argument("--procs", default="1,2,4")
    flags.add_argument("--sharding", default="table,row")
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--rows-scale", type=float, default=0.1)
    flags.add_argument("--quick", action="store_true", help="tiny tables: does it work at all?")
    flags.add_argument("--published", action="store_true", help="beside published figures")
    given = flags.parse_args(list(words))
    if given.published:
        published(given.out)
        return
    if given.quick:
        given.batch, given.procs, given.sharding = "16", "2", "table"
        given.rounds, given.rows_scale = 1, 0.0005
    console = Console()
    arch = ARCHS["criteo-kaggle"].scaled(given.rows_scale)
    cores = allowed.count()
    config = Task(procs=1, threads=1, batch_size=1).config
    device = known().device
    between = Processes(device, cores)
    grid = terminal.table(None, "processes", "sharding", "batch", "predicted ms", "ms", "error")
    path = None
    for size in map(int, given.batch.split(",")):
        alone = run(config, arch.schema, size)
        rates = speed.measure(alone.config, arch.schema, None, batch_size=size, threads=1)
        scale = calibrated(alone, device.shared(1), rates.step_s).scale
        for procs in map(int, given.procs.split(",")):
            for sharding in given.sharding.split(",") if procs > 1 else ("table",):
                here = between(procs)
                here = replace(here, device=replace(here.device, scale=scale), ids="uniform")
                step = step_of(run(config, arch.schema, size, procs, sharding), here)
                assert step is not None
                task = Task(
                    procs=procs,
                    threads=1,
                    batch_size=size,
                    sharding=sharding,
                    rows_scale=given.rows_scale,
                )
                steps = max(2, min(20, ROUND_SAMPLES // size))
                with Workers(task) as workers:
                    took = timer.interleave(
                        {"step": lambda workers=workers, steps=steps: workers.steps(steps)},
                        rounds=given.rounds,
                        warmup=1,
                    )["step"].per(steps)
                error = step.total_s / took.median - 1
                row = {
                    "procs": procs,
                    "sharding": sharding,
                    "batch_size": size,
                    "rows_scale": given.rows_scale,
                    "predicted_ms": step.total_s * 1e3,
                    **{f"predicted_{part}": value for part, value in asdict(step).items()},
                    **timer.figures(took),
                    "error": error,
                }
                grid.add_row(
                    str(procs),
                    sharding if procs > 1 else "",
                    f"{size:,}",
                    f"{step.total_s * 1e3:.1f}",
                    f"{took.median * 1e3:.1f}",
                    f"{error:+.0%}{'' if abs(error) <= TOLERANCE else ' MISSED'}",
                )
                path = append("simulate", row, given.out)
    console.print(grid)
    console.print(f"Saved: {path}")


def run(
    config: TrainConfig, schema: Schema, size: int, procs: int = 1, sharding: str = "table"
) -> Planned:
    """Plan steps of a batch size on so many devices with memory for anything."""
    config = replace(config, loader=replace(config.loader, batch_size=size))
    world = World(size=procs, memory_bytes=1 << 60, sharding=sharding)  # pyright: ignore[reportArgumentType]
    return planned(config, Data(schema, {}, {}), world)


def published(out: Path | None) -> None:
    """Set the simulator beside published figures."""
    console = Console()
    arch = ARCHS["criteo-terabyte"]
    config = TrainConfig(model=arch.model, precision="fp32")
    grid = terminal.table(None, "machine", "GPUs", "published ms", "full rates", "as one", "error")
    path = None
    for machine, (device, rates) in PUBLISHED.items():
        flops, memory, link = device
        full = Devices(Device.described(flops, memory), Network(Link(link, 5e-6)))
        slower = 1.0
        for world, rate in rates.items():
            plan = run(config, arch.schema, PUBLISHED_BATCH, world)
            real, fastest = PUBLISHED_BATCH / rate, step_of(plan, full)
            assert fastest is not None
            if world == 1:
                slower = real / fastest.total_s
            step = step_of(plan, replace(full, slowdown=slower))
            assert step is not None
            row = {
                "hardware": machine,
                "devices": world,
                "published_ms": real * 1e3,
                "full_rates_ms": fastest.total_s * 1e3,
                "predicted_ms": step.total_s * 1e3,
                "error": step.total_s / real - 1,
            }
            figures = (f"{row[name]:.1f}" for name in ("published_ms", "full_rates_ms"))
            grid.add_row(
                machine, str(world), *figures, f"{row['predicted_ms']:.1f}", f"{row['error']:+.0%}"
            )
            path = append("simulate-published", row, out)
    console.print(grid)
    console.print(f"Saved: {path}")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
