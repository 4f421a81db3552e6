"""A planned run on more and more devices: how long its steps take on each number of them."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from dlrm.planning.planned import Planned, planned
from dlrm.planning.simulate import Devices, Step, step_of

MOST_DEVICES = 1024
Scaling = Literal["strong", "weak"]
"""Whether the batch stays as large, or grows with the devices."""


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
    """Return a run on 1, 2, 4, ... `most` devices, of which any number is like `devices` says."""
    runs: list[Simulated] = []
    fewest, loader = None, base.config.loader
    for world in _worlds(most, loader.batch_size if scaling == "strong" else most):
        size = loader.batch_size * (world if scaling == "weak" else 1)
        config = replace(base.config, loader=replace(loader, batch_size=size))
        step = step_of(planned(config, base.data, replace(base.world, size=world)), devices(world))
        efficiency = None
        if step is not None:
            rate = size / step.total_s / world
            fewest = fewest or rate
            efficiency = rate / fewest
        runs.append(Simulated(world, size, step, efficiency))
    return runs


def _worlds(most: int, batch_size: int) -> Iterator[int]:
    world = 1
    # Each device has a sample.
    while world <= min(most, batch_size):
        yield world
        world *= 2
