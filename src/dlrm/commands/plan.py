"""`dlrm plan`: what a run would take, and where its tables would lie, before anything runs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from dlrm import recipes
from dlrm.bench import speed
from dlrm.commands import plan_data, plan_simulate
from dlrm.commands.flags import parse, take_value
from dlrm.commands.plan_data import Described
from dlrm.commands.plan_result import PlanResult
from dlrm.commands.recipe_flags import recipe_config, with_model
from dlrm.errors import ConfigError
from dlrm.parallel.device import Device, quantity
from dlrm.parallel.plan import Sharding
from dlrm.reporting.plan import write
from dlrm.training.config import TrainConfig
from dlrm.training.footprint import machine_bytes, resident_bytes
from dlrm.training.planned import World, alternatives, planned
from dlrm.training.simulated import Scaling, Simulated
from dlrm.training.times import Times, described, measured

DEFAULT = "criteo-terabyte"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Say what a run would take, and where its tables would lie, before anything runs.

    The first word names a recipe or data, as in `dlrm train`, whose flags also hold here. Where
    there are no data, --arch takes the sizes of a public data set, and --rows those of your own:
    dlrm plan --arch criteo-terabyte --world 8 --device-memory 80GB.

    Times are measured on this machine, for some seconds, and hold for machines like it; or they
    follow from what --flops and --memory-bandwidth say of a device.
    """

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    world: int = 1
    """Processes, each on a device of its own."""
    device_memory: str | None = None
    """What each has, e.g. 80GB; this machine's memory if not given."""
    sharding: Sharding | None = None
    """How tables are spread: whole (table), by rows (row) or columns (column), copied (replicate);
    auto chooses for each. That of --parallel.sharding if not given."""
    bandwidth: str = "12.5GB/s"
    """Of the link of each device to the others."""
    flops: str | None = None
    """Of each device, operations of matrix products a second, e.g. 60TFLOP."""
    memory_bandwidth: str | None = None
    """Of each device, e.g. 2TB/s."""
    arch: str | None = None
    """Sizes of a public data set instead of data: criteo-kaggle or criteo-terabyte."""
    rows: str | None = None
    """Rows of each table instead of data, e.g. 10M,250k,300; beside 13 dense features."""
    samples: int = 0
    """Training samples of an epoch, with --rows or instead of those of --arch."""
    measure: bool = True
    """Whether to measure on this machine, which takes up to ten seconds."""
    simulate: bool = False
    """Also say how long a step would take on 1, 2, 4, ... 1024 of these devices; without --flops
    and --link on as many processes of this machine, which is measured for half a minute."""
    link: str | None = None
    """With --simulate: of each device to those of other hosts, e.g. 25GB/s."""
    latency: str | None = None
    """With --simulate: of a message over a link, e.g. 10us; 5us if not given."""
    devices_per_host: int = 1
    """With --simulate: devices that share a host."""
    host_link: str | None = None
    """With --simulate: of each device to those of its own host, e.g. 300GB/s; --link if not
    given."""
    scaling: Scaling = "strong"
    """With --simulate: whether the batch stays as large (strong) or grows with the devices
    (weak)."""
    html: Path | None = None
    """Also write a page with a picture."""


def main(words: list[str], prog: str) -> PlanResult:
    """Parse `[RECIPE | DATA] [--FLAG VALUE ...]` and plan."""
    recipe, flags = recipes.first_word(words)
    asked = _value(flags, "--arch")
    elsewhere = any(flag.split("=")[0] in ("--arch", "--rows", "--data") for flag in flags)
    if recipe is None and not elsewhere:
        asked = DEFAULT
    name = recipe or asked or ("demo" if _value(flags, "--data") else "criteo-kaggle")
    if asked is not None:
        plan_data.arch(asked)
    config = with_model(recipe_config(name, flags), flags)
    default = Arguments(config=config, arch=asked)
    return plan(parse(Arguments, flags, prog, default=default), recipe)


def plan(arguments: Arguments, recipe: str | None = None) -> PlanResult:
    """Plan a run.

    Args:
        arguments: As on the command line.
        recipe: Name of the recipe that the config came from.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    # Asked first, before anything else is in memory.
    libraries = resident_bytes()
    config = arguments.config
    if arguments.world < 1 or arguments.samples < 0:
        raise ConfigError(
            f"world is {arguments.world} and samples {arguments.samples}: "
            "at least 1 and 0 are needed"
        )
    described_data = _data(arguments, recipe)
    device = _device(arguments)
    network = plan_simulate.network(
        arguments.link, arguments.latency, arguments.devices_per_host, arguments.host_link
    )
    memory = arguments.device_memory
    world = World(
        size=arguments.world,
        memory_bytes=int(quantity(memory, "B", "device-memory")) if memory else machine_bytes(),
        sharding=arguments.sharding or config.parallel.sharding,
        number_bytes=4 if config.parallel.exchange_dtype == "fp32" else 2,
        libraries_bytes=libraries,
    )
    run = planned(config, described_data.data, world)
    bandwidth = quantity(arguments.bandwidth, "B", "bandwidth")
    times: Times | None = None
    if device is not None:
        times = described(run, device)
    elif arguments.measure and not arguments.simulate:
        batch_size = -(-config.loader.batch_size // world.size)
        times = measured(
            run,
            speed.measure(
                config, described_data.data.schema, described_data.dataset, batch_size=batch_size
            ),
            bandwidth,
        )
    simulated: list[Simulated] = []
    if arguments.simulate:
        simulated = plan_simulate.simulate(run, device, network, arguments.scaling)
    result = PlanResult(
        name=described_data.name,
        planned=run,
        times=times,
        alternatives=[] if run.fits else alternatives(run),
        page=arguments.html,
        simulated=simulated,
        simulated_basis=plan_simulate.basis(device, network),
    )
    if arguments.html is not None:
        write(arguments.html, run, described_data.name, simulated)
    return result


def _data(arguments: Arguments, recipe: str | None) -> Described:
    if arguments.rows is not None:
        return plan_data.tables(arguments.rows, arguments.samples)
    if arguments.arch is None:
        return plan_data.prepared(arguments.config, recipe)
    described_data = plan_data.arch(arguments.arch)
    if not arguments.samples:
        return described_data
    return replace(
        described_data, data=replace(described_data.data, samples={"train": arguments.samples})
    )


def _device(arguments: Arguments) -> Device | None:
    flops, memory = arguments.flops, arguments.memory_bandwidth
    if flops is None and memory is None:
        return None
    if flops is None or memory is None:
        missing = "flops" if flops is None else "memory-bandwidth"
        raise ConfigError(f"a described device needs --{missing} too: give both, or neither")
    return Device(
        flops=quantity(flops, "FLOP", "flops"),
        memory_bandwidth=quantity(memory, "B", "memory-bandwidth"),
        bandwidth=quantity(arguments.bandwidth, "B", "bandwidth"),
    )


def _value(flags: list[str], name: str) -> str | None:
    return take_value(list(flags), name)
