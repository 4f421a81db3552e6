"""The original's test passes: its accuracy, and the metrics of MLPerf."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from math import isnan, nan

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrm.batch import Batch
from dlrm.compat.batches import Data, own_part
from dlrm.compat.flags import Flags
from dlrm.compat.mlperf import MLLog
from dlrm.compat.printing import print_accuracy
from dlrm.errors import DatasetError
from dlrm.metrics import auc
from dlrm.parallel.world import World

Logits = Callable[[Batch], Tensor]
"""Returns the logits (b, 1) of this process' part of a batch: `Engine.logits`."""


def correct(logits: Tensor, labels: Tensor) -> int:
    """Return how many probabilities round to their label; one of exactly 1/2 rounds to 0."""
    return int((logits.sigmoid().round() == labels).sum())


def measure_accuracy(flags: Flags, logits: Logits, data: Data, world: World) -> float:
    """Return the share of test samples, of all processes, whose probability rounds to their label.

    All processes call this.

    Raises:
        DatasetError: There are no test samples.

    """
    right = samples = 0
    for batch in _test_batches(flags, data):
        part = own_part(batch, world)
        right += correct(logits(part), part.labels)
        samples += len(batch)
    return int(world.sum(torch.tensor(right))) / samples


def _test_batches(flags: Flags, data: Data) -> Iterator[Batch]:
    """Yield the test batches, which `--num-batches` limits too."""
    empty = True
    for batch in islice(data.test.read(), flags.num_batches or None):
        empty = False
        yield batch
    if empty:
        raise DatasetError("there are no test samples: the last day of the log is empty")


@dataclass(frozen=True, slots=True)
class TestMetrics:
    """The metrics of a test pass of `--mlperf-logging`; not a number where one is undefined."""

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


def measure_mlperf(flags: Flags, logits: Logits, data: Data, world: World) -> TestMetrics:
    """Return the metrics of all test samples, of all processes, which call this.

    Raises:
        DatasetError: There are no test samples.

    """
    outputs = [
        torch.cat([logits(part).sigmoid(), part.labels], dim=1)
        for batch in _test_batches(flags, data)
        for part in [own_part(batch, world)]
    ]
    scores, labels = torch.cat(world.gather(torch.cat(outputs))).double().numpy().T
    return metrics_of(scores, labels)


@dataclass(slots=True)
class TestPasses:
    """The best that test passes have come to."""

    __test__ = False
    accuracy: float = 0.0
    auc: float = 0.0

    def measure(
        self,
        flags: Flags,
        logits: Logits,
        data: Data,
        world: World,
        mllog: MLLog,
        epoch: int,
        share: float,
    ) -> tuple[float, bool]:
        """Measure the test samples after a share of an epoch, counted from 0, and print.

        Returns:
            The accuracy, and whether this is the best pass so far.

        """
        if not flags.mlperf_logging:
            accuracy = measure_accuracy(flags, logits, data, world)
            improved, self.accuracy = accuracy > self.accuracy, max(accuracy, self.accuracy)
            print_accuracy(accuracy, self.accuracy)
            return accuracy, improved
        place = {"epoch_num": epoch + 1 + share}
        mllog.start("eval", **place)
        metrics = measure_mlperf(flags, logits, data, world)
        improved = metrics.auc > self.auc
        self.accuracy = max(metrics.accuracy, self.accuracy)
        self.auc = max(self.auc, metrics.auc)
        print(metrics.line(self.auc, self.accuracy), flush=True)
        mllog.event("eval_accuracy", None if isnan(metrics.auc) else metrics.auc, **place)
        mllog.stop("eval", **place)
        return metrics.accuracy, improved

    def reached(self, flags: Flags) -> str | None:
        """Return the threshold that the best is above; None where it is above none."""
        thresholds = {
            "accuracy": (self.accuracy, flags.mlperf_acc_threshold),
            "auc": (self.auc, flags.mlperf_auc_threshold),
        }
        for name, (value, threshold) in thresholds.items():
            if 0 < threshold < value:
                return f"{name} threshold {threshold}"
        return None
