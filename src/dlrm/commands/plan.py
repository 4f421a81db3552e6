"""`dlrm plan`: what a run would take, and where its tables would lie, before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from dlrm import recipes
from dlrm.bench import speed
from dlrm.commands import plan_data, plan_simulate
from dlrm.commands.flags import parse, take_value
from dlrm.commands.plan_data import Described
from dlrm.commands.plan_result import PlanResult
from dlrm.commands.recipe_flags import recipe_config, with_model
from dlrm.commands.run_config import run_config
from dlrm.errors import ConfigError
from dlrm.planning.device import Device
from dlrm.planning.footprint import machine_bytes, resident_bytes
from dlrm.planning.placement import Sharding
from dlrm.planning.planned import World, alternatives, planned
from dlrm.planning.quantities import quantity
from dlrm.planning.simulated import Scaling, Simulated, step_of
from dlrm.planning.times import Times, described, measured
from dlrm.reporting.plan import write
from dlrm.training.config import TrainConfig

DEFAULT = "criteo-terabyte"


@dataclass(frozen=True, kw_only=True, slots=True)
class Arguments:
    """Say what a run would take, and where its tables would lie, before anything runs.

    The first word names a recipe or data, as in `dlrm train`, whose flags also hold here. Where
    there are no data, --arch takes the sizes of a public data set, and --rows those of your own:
    dlrm plan --arch criteo-terabyte --procs 8 --device-memory 80GB.

    Times are measured on this machine, for some seconds, and hold for machines like it; or they
    follow from what --flops and --memory-bandwidth say of a device.
    """

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    procs: int = 1
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
    return _plan(parse(Arguments, flags, prog, default=default), recipe)


def plan(
    recipe: Any = None,
    *,
    data: Any = None,
    label: str | Sequence[str] = (),
    schema: Path | str | None = None,
    model: str | None = None,
    procs: int = 1,
    device_memory: str | None = None,
    sharding: Sharding | None = None,
    bandwidth: str = "12.5GB/s",
    flops: str | None = None,
    memory_bandwidth: str | None = None,
    arch: str | None = None,
    rows: str | None = None,
    samples: int = 0,
    measure: bool = True,
    simulate: bool = False,
    link: str | None = None,
    latency: str | None = None,
    devices_per_host: int = 1,
    host_link: str | None = None,
    scaling: Scaling = "strong",
    html: Path | str | None = None,
) -> PlanResult:
    """Say what a run would take, and where its tables would lie, before anything runs.

    Args:
        recipe: Data of one's own, name of a recipe, or a whole config, as in `dlrm.train`.
        data: Data for a recipe.
        label: The column to predict, or several.
        schema: A file that says what each column is.
        model: Another model than the recipe's.
        procs: Processes, each on a device of its own.
        device_memory: What each has, in words such as 80GB; None for this machine's.
        sharding: How tables are spread.
        bandwidth: Of the link of each device to the others.
        flops: Of each device, operations of matrix products a second.
        memory_bandwidth: Of each device.
        arch: Sizes of a public data set instead of data; criteo-terabyte where nothing is named.
        rows: Rows of each table instead of data.
        samples: Training samples of an epoch, with `rows` or instead of those of `arch`.
        measure: Whether to measure on this machine.
        simulate: Also say how long a step would take on up to 1024 devices.
        link: Of each device to those of other hosts.
        latency: Of a message over a link.
        devices_per_host: Devices that share a host.
        host_link: Of each device to those of its own host.
        scaling: Whether the batch stays as large or grows with the devices.
        html: Where to write a page with a picture.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    if recipe is None and data is None and rows is None:
        arch = arch or DEFAULT
    if arch is not None:
        plan_data.arch(arch)
    start = recipe if recipe is not None else arch or ("demo" if data else "criteo-kaggle")
    name, config = run_config(start, data=data, label=label, schema=schema, model=model)
    return _plan(
        Arguments(
            config=config,
            procs=procs,
            device_memory=device_memory,
            sharding=sharding,
            bandwidth=bandwidth,
            flops=flops,
            memory_bandwidth=memory_bandwidth,
            arch=arch,
            rows=rows,
            samples=samples,
            measure=measure,
            simulate=simulate,
            link=link,
            latency=latency,
            devices_per_host=devices_per_host,
            host_link=host_link,
            scaling=scaling,
            html=None if html is None else Path(html),
        ),
        None if recipe is None else name,
    )


def _plan(arguments: Arguments, recipe: str | None) -> PlanResult:
    """Plan a run whose config came from a recipe, or None."""
    # Asked first, before anything else is in memory.
    libraries = resident_bytes()
    config = arguments.config
    if arguments.procs < 1 or arguments.samples < 0:
        raise ConfigError(
            f"procs is {arguments.procs} and samples {arguments.samples}: "
            "at least 1 and 0 are needed"
        )
    described_data = _data(arguments, recipe)
    device = _device(arguments)
    network = plan_simulate.network(
        arguments.link, arguments.latency, arguments.devices_per_host, arguments.host_link
    )
    memory = arguments.device_memory
    world = World(
        size=arguments.procs,
        memory_bytes=int(quantity(memory, "B", "device-memory")) if memory else machine_bytes(),
        sharding=arguments.sharding or config.parallel.sharding,
        number_bytes=4 if config.parallel.exchange_dtype == "fp32" else 2,
        libraries_bytes=libraries,
    )
    run = planned(config, described_data.data, world)
    bandwidth = quantity(arguments.bandwidth, "B", "bandwidth")
    times: Times | None = None
    if device is not None:
        # The simulator's step: with --simulate and without, a plan says the same.
        equal = plan_simulate.rated_devices(run, device, network)
        times = described(run, device, step_of(run, equal))
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
