"""`dlrm plan --simulate`: the same run on more and more devices."""

import os
import re
from collections.abc import Sequence

import torch
from rich.console import Group, RenderableType

from dlrm import terminal
from dlrm.bench import operators
from dlrm.commands.plan_grids import amount
from dlrm.errors import ConfigError
from dlrm.nn.tables import tables_of
from dlrm.planning import rated
from dlrm.planning.device import Device
from dlrm.planning.network import Link, Network
from dlrm.planning.planned import Planned
from dlrm.planning.quantities import quantity
from dlrm.planning.simulated import Devices, Scaling, Simulated, simulated

LATENCY_S = 5e-6
"""Of a link, where nothing else is said."""
OVERSUBSCRIBED = 4
"""Times the cores of this machine, the processes that are looked at on it."""
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def seconds(text: str, flag: str) -> float:
    """Read a duration, e.g. 5us.

    Raises:
        ConfigError: It is none.

    """
    read = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?(?:e-?[0-9]+)?)\s*(s|ms|us|µs|ns)\s*", text)
    if read is None:
        raise ConfigError(f'{flag} is "{text}", expected a duration such as 5us')
    return float(read[1]) * SECONDS[read[2]]


def network(
    link: str | None, latency: str | None, devices_per_host: int, host_link: str | None
) -> Network | None:
    """Return the network that flags describe; None where they say nothing.

    Raises:
        ConfigError: They are no amounts, or say too little.

    """
    if devices_per_host < 1:
        raise ConfigError(f"devices-per-host is {devices_per_host}, expected at least 1")
    if link is None:
        if latency is not None or host_link is not None or devices_per_host > 1:
            raise ConfigError("a described network needs --link too, e.g. --link 25GB/s")
        return None
    late = LATENCY_S if latency is None else seconds(latency, "latency")
    inside = None if host_link is None else Link(quantity(host_link, "B", "host-link"), late)
    outside = Link(quantity(link, "B", "link"), late)
    return Network(outside, devices_per_host=devices_per_host, host=inside)


def simulate(
    run: Planned, device: Device | None, described: Network | None, scaling: Scaling
) -> list[Simulated]:
    """Simulate a run.

    Args:
        run: The run.
        device: Described, or None for this machine, which is then measured.
        described: The network, or None for the processes of this machine, on its cores.
        scaling: Whether the batch grows with the devices.

    """
    config, schema = run.config, run.data.schema
    if device is not None:
        equal = rated_devices(run, device, described)
        return simulated(run, lambda _: equal, scaling=scaling)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cores = cores or 1
    if described is not None:
        threads = config.threads or cores
        rates, _ = operators.measure(config, schema, procs=1, threads=threads)
        return simulated(run, lambda _: Devices(rates, described), scaling=scaling)
    here = operators.here(config, schema, cores)
    return simulated(run, here, most=OVERSUBSCRIBED * cores, scaling=scaling)


def rated_devices(run: Planned, device: Device, described: Network | None) -> Devices:
    """Return devices at the rates that they are said to have, on a network or on plain links."""
    with torch.device("meta"):
        model = run.config.model.build(run.data.schema)
    rates = rated.operators(
        device,
        run.cost,
        run.kept,
        model,
        storage=tables_of(run.config.model).storage,
        optimizer=run.config.optim.name,
    )
    return Devices(rates, described or Network(Link(device.bandwidth, LATENCY_S)))


def simulated_grid(simulated: Sequence[Simulated], basis: str) -> RenderableType:
    """Return the time of a step by number of devices, and what it is made of.

    Args:
        simulated: By number of devices.
        basis: Where the figures come from.

    """
    grid = terminal.table(
        "Simulated: ms of a step", "devices", "step", "MLPs", "tables", "sent", "sums", "waits",
        "rate/s", "share",
    )  # fmt: skip
    for result in simulated:
        step = result.step
        if step is None or result.samples_per_s is None or result.efficiency is None:
            grid.add_row(str(result.devices), "too small")
            continue
        parts = (
            step.total_s,
            step.bottom_s + step.top_s,
            step.lookup_s + step.update_s + step.routing_s,
            step.ids_s + step.vectors_s,
            step.sums_s,
            step.waiting_s,
        )
        grid.add_row(
            str(result.devices),
            *(f"{1e3 * part:.2f}" for part in parts),
            amount(result.samples_per_s, "").strip(),
            f"{result.efficiency:.0%}",
        )
    note = (
        f"A step has {simulated[-1].batch_size:,} samples on {simulated[-1].devices} devices. "
        "Sent: ids, vectors and gradients, as far as nothing hides them. Share: samples a second "
        "and device, of those of the fewest."
    )
    return Group(grid, note, basis)


def basis(device: Device | None, described: Network | None) -> str:
    """Say where the figures come from."""
    if device is not None:
        return "Devices at the full rates described: no step is faster."
    if described is not None:
        return "Each device is a machine like this, whose operators were measured."
    return "Processes of one thread on this machine; above its cores they share them."
