"""A planned run on more and more devices: how long its steps would take on each number of them."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from dlrm.planning.network import Network
from dlrm.planning.planned import Planned, planned
from dlrm.planning.simulate import Operators, Step, simulate

Scaling = Literal["strong", "weak"]
"""Whether the batch stays as large, or grows with the devices."""

MOST_DEVICES = 1024


@dataclass(frozen=True, slots=True)
class Devices:
    """Equal devices that train together."""

    operators: Operators
    network: Network
    overlap: bool = True
    """Whether they send and compute at once."""
    slowdown: float = 1.0
    """Times as long as what they compute takes, where they share cores."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A run on so many devices."""

    devices: int
    batch_size: int
    """Samples of a batch, over all of them."""
    step: Step | None
    """None where it does not fit."""
    efficiency: float | None
    """Samples a second and device, over those of the fewest devices that it fits."""

    @property
    def samples_per_s(self) -> float | None:
        """Samples a second of all devices together."""
        return self.batch_size / self.step.total_s if self.step else None

    def to_dict(self) -> dict[str, Any]:
        """Return the figures JSON-ready."""
        return {
            "devices": self.devices,
            "batch_size": self.batch_size,
            "step_s": self.step.total_s if self.step else None,
            "samples_per_s": self.samples_per_s,
            "efficiency": self.efficiency,
            **(asdict(self.step) if self.step else {}),
        }


def simulated(
    base: Planned,
    devices: Callable[[int], Devices],
    *,
    most: int = MOST_DEVICES,
    scaling: Scaling = "strong",
) -> list[Simulated]:
    """Return a run on 1, 2, 4, ... devices.

    Args:
        base: The run; its batch is that of one device where batches grow.
        devices: What a number of devices are like.
        most: Of them.
        scaling: Whether the batch grows with them.

    """
    runs: list[Simulated] = []
    fewest = None
    for world in _worlds(most, base.config.loader.batch_size if scaling == "strong" else most):
        size = base.config.loader.batch_size * (world if scaling == "weak" else 1)
        config = replace(base.config, loader=replace(base.config.loader, batch_size=size))
        plan = planned(config, base.data, replace(base.world, size=world))
        step = step_of(plan, devices(world)) if plan.plan is not None else None
        if step is None:
            runs.append(Simulated(world, size, None, None))
            continue
        rate = size / step.total_s / world
        fewest = fewest or rate
        runs.append(Simulated(world, size, step, rate / fewest))
    return runs


def step_of(run: Planned, devices: Devices) -> Step | None:
    """Return the time of a step of a planned run; None where its tables do not fit."""
    if run.plan is None or run.traffic is None:
        return None
    return simulate(
        devices.operators,
        run.plan,
        run.traffic,
        devices.network,
        batch_size=run.config.loader.batch_size,
        dense_bytes=run.kept.dense_bytes,
        overlap=devices.overlap,
        slowdown=devices.slowdown,
    )


def _worlds(most: int, batch_size: int) -> Iterator[int]:
    world = 1
    # Each device has a sample.
    while world <= min(most, batch_size):
        yield world
        world *= 2
