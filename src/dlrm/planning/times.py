"""How long a planned run would take, at rates that were measured or that devices should have."""

from dataclasses import dataclass

from dlrm.nn.tables import tables_of
from dlrm.planning.device import Device, StepTime, step_time
from dlrm.planning.planned import Planned
from dlrm.planning.rates import Rates
from dlrm.planning.simulate import Step

EVALUATIONS = 10
"""Of an epoch, unless the config says otherwise."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that a planned run would take."""

    basis: str
    """`measured` or `described`."""
    step_s: float
    """Seconds of a training step of all devices."""
    exchange_s: float
    """Seconds of a step in which numbers travel between devices."""
    samples_per_s: float
    """Samples a second in training, without evaluation."""
    train_s: float
    """Seconds of the training of an epoch."""
    evaluation_s: float | None
    """Seconds of the evaluations of an epoch; None where not known."""
    saving_s: float | None
    """Seconds of the checkpoints of an epoch; None where not known."""
    parts: StepTime | None = None
    """What a step on a described device takes at least of each; None of a measured one."""
    rates: Rates | None = None
    """The rates that were measured; None of a described device."""

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch with all that belongs to it."""
        return self.train_s + (self.evaluation_s or 0.0) + (self.saving_s or 0.0)


def measured(run: Planned, rates: Rates, bandwidth: float) -> Times:
    """Return the times on machines like the one that was measured.

    Args:
        run: What is planned.
        rates: Measured with the samples of one process.
        bandwidth: Bytes a second between machines.

    """
    config, samples = run.config, run.data.samples
    exchange_s = 0.0
    if run.traffic is not None:
        exchange_s = run.traffic.busiest(config.loader.batch_size) / bandwidth
    step_s = rates.step_s + exchange_s
    steps = -(-samples.get("train", 0) // config.loader.batch_size)
    every = config.eval.every
    evaluations = (steps // every + (steps % every > 0)) if every else min(EVALUATIONS, steps)
    held_out = sum(samples.get(split, 0) for split in config.eval.splits)
    scored = held_out * evaluations
    saves = -(-steps // config.checkpoint.every) if config.checkpoint.every else evaluations
    # Each process writes what it has.
    written = run.footprint.checkpoint_bytes / run.world.size
    return Times(
        basis="measured",
        step_s=step_s,
        exchange_s=exchange_s,
        samples_per_s=config.loader.batch_size / step_s,
        train_s=steps * step_s,
        evaluation_s=scored * rates.evaluation_s / run.world.size
        + (scored + samples.get("train", 0)) * rates.metrics_s,
        saving_s=saves * (rates.save_s + written * rates.write_s),
        rates=rates,
    )


def described(run: Planned, device: Device, step: Step | None) -> Times | None:
    """Return the times on devices at the rates that they are said to have; None without a plan.

    Args:
        run: What is planned.
        device: One of them.
        step: Of the run on all of them, as `dlrm.planning.simulated` has it.

    """
    if run.plan is None or run.traffic is None or step is None:
        return None
    config = run.config
    parts = step_time(
        device,
        run.plan,
        run.traffic,
        run.cost,
        run.kept,
        batch_size=config.loader.batch_size,
        storage=tables_of(config.model).storage,
        optimizer=config.optim.name,
    )
    steps = -(-run.data.samples.get("train", 0) // config.loader.batch_size)
    return Times(
        basis="described",
        step_s=step.total_s,
        exchange_s=parts.exchange_s,
        samples_per_s=config.loader.batch_size / step.total_s,
        train_s=steps * step.total_s,
        evaluation_s=None,
        saving_s=None,
        parts=parts,
    )
