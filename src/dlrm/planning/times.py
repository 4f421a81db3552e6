"""How long a planned run would take, at rates that were measured or that devices should have."""

from dataclasses import dataclass, replace

from dlrm.planning.costs import Device
from dlrm.planning.network import Link, Network
from dlrm.planning.planned import Planned, planned
from dlrm.planning.simulate import Bounds, Devices, bounds, step_of

UNLIMITED = 1 << 60
"""Bytes of memory in which every run fits."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds that a machine was measured to need for the parts of a training run."""

    step_s: float
    """Seconds of a training step."""
    evaluation_s: float
    """Seconds of a sample that is scored without training."""
    metrics_s: float
    """Seconds of the metrics of a sample."""
    save_s: float
    """Seconds of a checkpoint, however small."""
    write_s: float
    """Seconds of a byte of a checkpoint."""
    capped: bool
    """Whether tables were larger than what was measured on."""
    ids: str
    """Where the ids came from: `data`, or `zipf`."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that a planned run would take."""

    basis: str
    """`measured` or `described`."""
    step_s: float
    """Seconds of a training step of all devices."""
    exchange_s: float
    """Seconds of a step in which the busiest link is busy, hidden or not."""
    samples_per_s: float
    """Samples a second in training, without evaluation."""
    train_s: float
    """Seconds of the training of an epoch."""
    bounds: Bounds
    """What arithmetic, memory and links ask for in a step."""
    evaluation_s: float | None = None
    """Seconds of the evaluations of an epoch; None where not known."""
    saving_s: float | None = None
    """Seconds of the checkpoints of an epoch; None where not known."""
    rates: Rates | None = None
    """The rates that were measured; None of a described device."""

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch with all that belongs to it."""
        return self.train_s + (self.evaluation_s or 0.0) + (self.saving_s or 0.0)


def calibrated(run: Planned, device: Device, step_s: float) -> Device:
    """Return a device on which a step of one process' samples, with all tables, takes `step_s`."""
    alone = replace(run.world, size=1, memory_bytes=UNLIMITED)
    batch_size = -(-run.config.loader.batch_size // run.world.size)
    config = replace(run.config, loader=replace(run.config.loader, batch_size=batch_size))
    step = step_of(planned(config, run.data, alone), Devices(device, Network(Link(1.0))))
    assert step is not None
    return replace(device, scale=step_s / step.total_s)


def times(run: Planned, devices: Devices, rates: Rates | None = None) -> Times | None:
    """Return the times of a run, at `rates` that were measured or as devices are described.

    Where its tables do not fit, those that it would have with room for them, if they were measured,
    and None of devices that are only described.
    """
    placed = run
    if run.plan is None and rates is not None:
        placed = planned(run.config, run.data, replace(run.world, memory_bytes=UNLIMITED))
    step, limits = step_of(placed, devices), bounds(placed, devices)
    if step is None or limits is None:
        return None
    config, samples = run.config, run.data.samples
    steps = -(-samples.get("train", 0) // config.loader.batch_size)
    evaluation_s = saving_s = None
    if rates is not None:
        evaluations = config.eval.evaluations(steps)
        scored = evaluations * sum(samples.get(split, 0) for split in config.eval.splits)
        evaluation_s = scored * rates.evaluation_s / run.world.size
        evaluation_s += (scored + samples.get("train", 0)) * rates.metrics_s
        saves = -(-steps // config.checkpoint.every) if config.checkpoint.every else evaluations
        # Each process writes what it has.
        written = run.footprint.checkpoint_bytes / run.world.size
        saving_s = saves * (rates.save_s + written * rates.write_s)
    return Times(
        basis="measured" if rates else "described",
        step_s=step.total_s,
        exchange_s=limits.exchange_s,
        samples_per_s=config.loader.batch_size / step.total_s,
        train_s=steps * step.total_s,
        bounds=limits,
        evaluation_s=evaluation_s,
        saving_s=saving_s,
        rates=rates,
    )
