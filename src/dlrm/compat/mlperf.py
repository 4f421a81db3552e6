"""The test pass of `--mlperf-logging`: more metrics, and training ends where one is good enough."""

from dataclasses import dataclass
from math import nan

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dlrm.compat.batches import Data
from dlrm.compat.distributed import share_of
from dlrm.compat.flags import Flags
from dlrm.errors import DatasetError
from dlrm.metrics import auc
from dlrm.parallel.world import World


@dataclass(frozen=True, slots=True)
class TestMetrics:
    """What `--mlperf-logging` prints of a test pass; not a number where a metric is undefined."""

    __test__ = False
    recall: float
    precision: float
    f1: float
    average_precision: float
    auc: float
    accuracy: float

    def line(self, best_auc: float, best_accuracy: float) -> str:
        """Return the line of the test pass, as the original prints it."""
        return (
            f"recall {self.recall:.4f}, precision {self.precision:.4f}, f1 {self.f1:.4f}, "
            f"ap {self.average_precision:.4f}, auc {self.auc:.4f}, best auc {best_auc:.4f}, "
            f"accuracy {self.accuracy * 100:3.3f} %, best accuracy {best_accuracy * 100:3.3f} %"
        )


def metrics_of(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> TestMetrics:
    """Return the metrics of (S,) probabilities and (S,) labels; those above 1/2 predict a 1."""
    predicted, true = np.round(scores) == 1, labels == 1
    hits = int((predicted & true).sum())
    order = np.argsort(-scores, kind="stable")
    # Samples of equal scores are retrieved together.
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    retrieved = true[order].cumsum()[last]
    gained = np.diff(retrieved, prepend=0)
    area = auc(scores, labels)
    return TestMetrics(
        recall=hits / true.sum() if true.any() else 0.0,
        precision=hits / predicted.sum() if predicted.any() else 0.0,
        f1=2 * hits / total if (total := predicted.sum() + true.sum()) else 0.0,
        average_precision=float((gained * retrieved / (last + 1)).sum() / true.sum())
        if true.any()
        else 0.0,
        auc=nan if area is None else area,
        accuracy=float((np.round(scores) == labels).mean()),
    )


@torch.no_grad()
def measure_mlperf(flags: Flags, net: nn.Module, data: Data, world: World) -> TestMetrics:
    """Return the metrics of all test samples, of all processes.

    Args:
        flags: Of the run; `--num-batches` limits the test data too.
        net: `forward(batch) -> logits (B, 1)`.
        data: Of the run.
        world: The processes, all of which call this.

    Raises:
        DatasetError: There are no test samples.

    """
    mine = [torch.empty(0, 2)]
    for number, batch in enumerate(data.test.read(share=share_of(world))):
        if 0 < flags.num_batches <= number:
            break
        mine.append(torch.cat([net(batch).sigmoid(), batch.labels], dim=1))
    samples = torch.cat(world.gather(torch.cat(mine)))
    if not len(samples):
        raise DatasetError("there are no test samples: the last day of the log is empty")
    scores, labels = samples.double().numpy().T
    return metrics_of(scores, labels)
