"""`dlrm plan`: what a run would take, and where its tables would lie, before anything runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from dlrm import cores as allowed
from dlrm import recipes
from dlrm.bench import network as processes
from dlrm.bench import speed
from dlrm.bench.arch import ARCHS, NUM_DENSE, SAMPLES
from dlrm.bench.known import known
from dlrm.commands.flags import Folder, parse_with_config, take_value
from dlrm.commands.plan_result import PlanResult
from dlrm.commands.run_config import Settings, recipe_config, run_config, with_model
from dlrm.data.resolve import resolve
from dlrm.data.split import SPLITS
from dlrm.data.store import Dataset
from dlrm.errors import ConfigError, InputError, unknown
from dlrm.planning.costs import Device
from dlrm.planning.facts import machine_bytes
from dlrm.planning.footprint import Data, dataset_bytes, resident_bytes
from dlrm.planning.network import Link, Network
from dlrm.planning.placement import Sharding
from dlrm.planning.planned import Planned, World, alternatives, planned
from dlrm.planning.quantities import counts, duration, quantity
from dlrm.planning.scaling import MOST_DEVICES, Scaling, simulated
from dlrm.planning.simulate import Devices
from dlrm.planning.times import Rates, calibrated, times
from dlrm.reporting.page import save
from dlrm.reporting.plan import page
from dlrm.schema import Schema
from dlrm.training.build import pooling
from dlrm.training.config import TrainConfig

DEFAULT = "criteo-terabyte"
LATENCY_S = 5e-6
"""Latency of a link, where nothing else is said."""
OVERSUBSCRIBED = 4
"""Times the cores of this machine, the processes that are looked at on it."""


def main(words: list[str], prog: str) -> PlanResult:
    """Parse `[RECIPE | DATA] [--FLAG VALUE ...]` and plan."""
    recipe, flags = recipes.first_word(words)
    arch = take_value(list(flags), "--arch")
    elsewhere = any(flag.split("=")[0] in ("--arch", "--rows", "--data") for flag in flags)
    if recipe is None and not elsewhere:
        arch = DEFAULT
    name = recipe or arch or ("demo" if take_value(list(flags), "--data") else "criteo-kaggle")
    if arch is not None:
        _known(arch)
    config = with_model(recipe_config(name, flags), flags)
    config, given = parse_with_config(plan, config, flags, prog, arch=arch)
    return plan(recipe, config, **given)


def plan(
    recipe: Any = None,
    config: TrainConfig | None = None,
    *,
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
    html: Folder = None,
    **settings: Unpack[Settings],
) -> PlanResult:
    """Say what a run would take, and where its tables would lie, before anything runs.

    The first word names a recipe or data, as in `dlrm train`, whose flags also hold here. Where
    there are no data, --arch takes the sizes of a public data set, and --rows those of your own:
    dlrm plan --arch criteo-terabyte --procs 8 --device-memory 80GB.

    Times are measured on this machine, for some seconds, and hold for machines like it; or they
    follow from what --flops and --memory-bandwidth say of a device.

    Args:
        recipe: Data of one's own, name of a recipe, or a whole config, as in `dlrm.train`.
        config: The whole config of the recipe, changed or not; None for the recipe's own.
        procs: Processes, each on a device of its own.
        device_memory: What each has, e.g. 80GB; this machine's memory if not given.
        sharding: How tables are spread: whole (table), by rows (row) or columns (column), copied
            (replicate); auto chooses for each. That of --parallel.sharding if not given.
        bandwidth: Bandwidth of the link of each device to the others.
        flops: Operations of matrix products a second of each device, e.g. 60TFLOP.
        memory_bandwidth: Memory bandwidth of each device, e.g. 2TB/s.
        arch: Sizes of a public data set instead of data: criteo-kaggle or criteo-terabyte.
        rows: Rows of each table instead of data, e.g. 10M,250k,300; beside 13 dense features.
        samples: Training samples of an epoch, with --rows or instead of those of --arch.
        measure: Whether to measure on this machine, for some seconds; where several devices are
            asked for, its limits too (`dlrm bench machine`), once.
        simulate: Also say how long a step would take on 1, 2, 4, ... 1024 of these devices; without
            --flops and --link on as many processes of this machine, of one thread each.
        link: With --simulate: of each device to those of other hosts, e.g. 25GB/s.
        latency: With --simulate: of a message over a link, e.g. 10us; 5us if not given.
        devices_per_host: With --simulate: devices that share a host.
        host_link: With --simulate: of each device to those of its own host, e.g. 300GB/s; --link
            if not given.
        scaling: With --simulate: whether the batch stays as large (strong) or grows with the
            devices (weak).
        html: Also write a page with a picture.
        settings: What changes the recipe: `data`, `label`, `model`, ...; see
            `dlrm.commands.run_config.Settings`.

    Raises:
        DlrmError: See `dlrm.errors`.

    """
    # Asked first, before anything else is in memory.
    libraries = resident_bytes()
    if config is None:
        has_data = settings.get("data") is not None
        if recipe is None and not has_data and rows is None:
            arch = arch or DEFAULT
        if arch is not None:
            _known(arch)
        start = recipe
        if recipe is None:
            start = arch or ("demo" if has_data else "criteo-kaggle")
        name, config = run_config(start, **settings)
        recipe = None if recipe is None else name
    if procs < 1 or samples < 0:
        raise ConfigError(f"procs is {procs} and samples {samples}: at least 1 and 0 are needed")
    described = _device(flops, memory_bandwidth)
    if rows is not None:
        sizes = counts("rows", rows)
        planned_for = Data(Schema.one_hot(NUM_DENSE, sizes), {"train": samples}, {})
        dataset, name = None, f"{len(sizes)} tables"
    else:
        planned_for, dataset, name = _data(config, recipe, arch, samples)
    network = _network(link, latency, devices_per_host, host_link)
    world = World(
        size=procs,
        memory_bytes=int(quantity(device_memory, "B", "device-memory"))
        if device_memory
        else machine_bytes(),
        sharding=sharding or config.parallel.sharding,
        number_bytes=4 if config.parallel.exchange_dtype == "fp32" else 2,
        libraries_bytes=libraries,
    )
    run = planned(config, planned_for, world)
    links = network or Network(Link(quantity(bandwidth, "B", "bandwidth"), LATENCY_S))
    devices: Callable[[int], Devices] | None = None
    rates, most, basis = None, MOST_DEVICES, ""
    if described is not None:
        basis = "Devices at the full rates described: no step is faster."
        devices = _equal(Devices(described, links))
    elif simulate and network is None:
        basis = "Processes of one thread on this machine; above its cores they share them."
        cores = allowed.count()
        most = OVERSUBSCRIBED * cores
        rates = _measure(run, dataset, threads=1)
        here = known().device
        scale = calibrated(run, here.shared(1), rates.step_s).scale
        devices = processes.Processes(replace(here, scale=scale), cores)
    elif measure:
        basis = "Each device is a machine like this, on which steps were measured."
        rates = _measure(run, dataset)
        # What a machine can do says how one step becomes another; alone it stays as it is.
        more = simulate or procs > 1
        device = known().device if more else Device.described(1.0, 1.0)
        devices = _equal(Devices(calibrated(run, device, rates.step_s), links))
    steps = []
    if simulate and devices is not None:
        steps = simulated(run, devices, most=most, scaling=scaling)
    if html is not None:
        save(page(run, name, steps), Path(html))
    return PlanResult(
        name=name,
        planned=run,
        times=times(run, devices(procs), rates) if devices is not None else None,
        alternatives=[] if run.fits else alternatives(run),
        page=None if html is None else Path(html),
        simulated=steps,
        simulated_basis=basis,
    )


def _equal(devices: Devices) -> Callable[[int], Devices]:
    """Return devices that are the same in any number."""
    return lambda _: devices


def _measure(run: Planned, dataset: Dataset | None, threads: int = 0) -> Rates:
    batch_size = -(-run.config.loader.batch_size // run.world.size)
    schema = run.data.schema
    return speed.measure(run.config, schema, dataset, batch_size=batch_size, threads=threads)


def _data(
    config: TrainConfig, recipe: str | None, arch: str | None, samples: int
) -> tuple[Data, Dataset | None, str]:
    """Return the data that a plan is made for, if they are there, and what they are called.

    Of a recipe whose public data are not there, what is known of these.
    """
    if arch is None:
        try:
            dataset = resolve(config.data, config.prepare)
        except InputError:
            if recipe not in ARCHS:
                raise
            arch = recipe
        else:
            rows = {name: len(dataset.split(name)) for name in dataset.splits}
            data = Data(dataset.schema, rows, pooling(dataset), dataset_bytes(dataset))
            return data, dataset, str(dataset.path)
    rows = {"train": samples} if samples else dict(zip(SPLITS, SAMPLES[arch], strict=True))
    return Data(_known(arch), rows, {}), None, f"the tables of {arch}"


def _known(arch: str) -> Schema:
    """Return the columns of a public data set.

    Raises:
        ConfigError: There is none of that name.

    """
    if arch not in SAMPLES:
        raise unknown("arch", arch, SAMPLES)
    return ARCHS[arch].schema


def _device(flops: str | None, memory: str | None) -> Device | None:
    if flops is None and memory is None:
        return None
    if flops is None or memory is None:
        missing = "flops" if flops is None else "memory-bandwidth"
        raise ConfigError(f"a described device needs --{missing} too: give both, or neither")
    return Device.described(
        quantity(flops, "FLOP", "flops"), quantity(memory, "B", "memory-bandwidth")
    )


def _network(
    link: str | None, latency: str | None, near: int, host_link: str | None
) -> Network | None:
    """Return the network that flags describe; None where they say nothing."""
    if near < 1:
        raise ConfigError(f"devices-per-host is {near}, expected at least 1")
    if link is None:
        if latency is not None or host_link is not None or near > 1:
            raise ConfigError("a described network needs --link too, e.g. --link 25GB/s")
        return None
    late = LATENCY_S if latency is None else duration(latency, "latency")
    inside = None if host_link is None else Link(quantity(host_link, "B", "host-link"), late)
    return Network(Link(quantity(link, "B", "link"), late), devices_per_host=near, host=inside)
