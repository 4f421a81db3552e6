"""What a machine was measured to need for the parts of a training run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds on a machine."""

    step_s: float
    """Of a training step."""
    evaluation_s: float
    """Of a sample, scored without training."""
    metrics_s: float
    """Of the metrics of a sample."""
    save_s: float
    """Of a checkpoint, however small."""
    write_s: float
    """Of a byte of a checkpoint."""
    capped: bool
    """Whether tables were larger than what was measured on."""
    ids: str
    """Where the ids came from: `data`, or `zipf`."""
