"""What a machine was measured to need for the parts of a training run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds that a machine needs."""

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
