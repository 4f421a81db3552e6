"""The model of a run, whatever it is, and what its training took."""

from dataclasses import dataclass

from torch import nn

from dlrm.nn import precision
from dlrm.run import Run
from dlrm.training import ensemble
from dlrm.training.config import from_dict
from dlrm.training.loop import load_best


def load_model(run: Run) -> nn.Module:
    """Return the trained model of a run: its best checkpoint, or the mean of its members' best.

    Returns:
        In evaluation mode; `forward(batch) -> logits (B,)`.

    Raises:
        RunError: It, or one of its members, has no checkpoint yet.

    """
    config = from_dict(run.config)
    if config.ensemble > 1:
        members = (Run.open(ensemble.folder(run, k)) for k in range(config.ensemble))
        return ensemble.Ensemble(map(load_model, members), config.ensemble_mean).eval()
    model = config.model.build(run.schema, precision.resolve(config.precision))
    return load_best(run, model).eval()


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """What a training took; of an ensemble all members together."""

    step: int
    """Optimizer steps taken."""
    samples: int
    elapsed_s: float
    """Seconds of training, without evaluation."""

    @property
    def samples_per_s(self) -> float:
        """Samples a second."""
        return self.samples / self.elapsed_s


def effort(run: Run) -> Effort:
    """Return what the training of a finished run took."""
    rows = run.metrics()
    members = [row for row in rows if row["event"] == "member"]
    counted = members or [next(row for row in reversed(rows) if row["event"] == "train")]
    return Effort(
        step=sum(row["step"] for row in counted),
        samples=sum(row["samples"] for row in counted),
        elapsed_s=sum(row["elapsed_s"] for row in counted),
    )
