"""`--mlperf-logging`: lines for MLPerf's checkers, and a test pass of more metrics."""

import json
import sys
import time
from dataclasses import dataclass
from math import nan
from typing import Any

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


class MLLog:
    """`:::MLLOG` lines on standard output, in the format of MLPerf's own logger.

    Each is a JSON object of namespace, time_ms, event_type, key, value and metadata, which names
    the line of code beside what the caller adds.

    Args:
        enabled: Whether anything is printed.

    """

    def __init__(self, *, enabled: bool):
        self.enabled = enabled
        self._epoch: int | None = None

    def event(self, key: str, value: Any, **metadata: Any) -> None:
        """Say what happened, or what a setting is."""
        self._print("POINT_IN_TIME", key, value, metadata)

    def start(self, key: str, **metadata: Any) -> None:
        """Begin an interval."""
        self._print("INTERVAL_START", f"{key}_start", None, metadata)

    def stop(self, key: str, **metadata: Any) -> None:
        """End an interval."""
        self._print("INTERVAL_END", f"{key}_stop", None, metadata)

    def settings(self, flags: Flags) -> None:
        """Say what is trained, and by whom as the original does."""
        reference = "reference_implementation"
        events = {
            "submission_benchmark": "dlrm",
            "submission_org": reference,
            "submission_division": "closed",
            "submission_status": "onprem",
            "submission_platform": reference,
            "submission_entry": reference,
            "submission_poc_name": reference,
            "submission_poc_email": reference,
            "seed": flags.numpy_rand_seed,
            "global_batch_size": flags.mini_batch_size,
            "opt_base_learning_rate": flags.learning_rate,
            "opt_learning_rate_warmup_steps": flags.lr_num_warmup_steps,
            "sgd_opt_base_learning_rate": flags.learning_rate,
            "lr_decay_start_steps": flags.lr_decay_start_step,
            "sgd_opt_learning_rate_decay_steps": flags.lr_num_decay_steps,
            "sgd_opt_learning_rate_decay_poly_power": 2,
        }
        for key, value in events.items():
            self.event(key, value)

    def epoch(self, number: int) -> None:
        """Begin an epoch, numbered from 0, where it is not the one that has begun."""
        if number == self._epoch:
            return
        self._stop_epoch()
        self._epoch = number
        self.start("block", first_epoch_num=number + 1, epoch_count=1)
        self.start("epoch", epoch_num=number + 1)

    def stop_run(self, *, success: bool) -> None:
        """End the run."""
        self._stop_epoch()
        self.stop("run", status="success" if success else "aborted")

    def _stop_epoch(self) -> None:
        if self._epoch is not None:
            self.stop("epoch", epoch_num=self._epoch + 1)
            self.stop("block", first_epoch_num=self._epoch + 1)

    def _print(
        self, event_type: str, key: str, value: Any, metadata: dict[str, Any] | None = None
    ) -> None:
        if not self.enabled:
            return
        caller = sys._getframe(2)
        place = {"file": caller.f_code.co_filename, "lineno": caller.f_lineno}
        line = {
            "namespace": "",
            "time_ms": round(time.time() * 1000),
            "event_type": event_type,
            "key": key,
            "value": value,
            "metadata": {**(metadata or {}), **place},
        }
        print(f":::MLLOG {json.dumps(line)}", flush=True)


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
