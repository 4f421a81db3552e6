"""What a trained model predicts, and how good that is."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dlrm.batch import Batch
from dlrm.data.loader import Loader, joined
from dlrm.data.store import Split
from dlrm.metrics import (
    LEVEL,
    RESAMPLES,
    Array,
    Metrics,
    MetricValues,
    calibration_bins,
    intervals,
    measure,
    sigmoid,
    user_auc,
)
from dlrm.parallel.world import World

HISTOGRAM_BINS = 50


def predict(model: nn.Module, batches: Iterable[Batch]) -> Metrics:
    """Return the model's logits and the labels, in the order of the batches."""
    result = Metrics()
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            result.update(model(batch).float().numpy(), batch.labels.numpy())
    model.train(was_training)
    return result


def predict_split(
    model: nn.Module, split: Split, batch_size: int, world: World | None = None
) -> Metrics:
    """Return the model's logits and the labels of a split, in its order.

    Args:
        model: Of one process, or of these.
        split: What to predict.
        batch_size: Samples a batch.
        world: The processes that predict, each its part of every batch; all get all of them.

    """
    world = world or World.alone()
    loader = Loader(split, batch_size=batch_size, part=(world.rank, world.size))
    found = predict(model, loader.epoch())
    if world.size == 1:
        return found
    whole = Metrics()
    parts = (world.gather(torch.from_numpy(array)) for array in found.arrays())
    arrays = ([part.numpy() for part in of] for of in parts)
    whole.update(*(joined(of, len(split), batch_size) for of in arrays))
    return whole


def optimum(split: Split) -> MetricValues | None:
    """Return the metrics of the truth itself; None where the truth is not known.

    No model can be expected to do better on these rows.
    """
    if split.truth is None or len(split) == 0:
        return None
    return measure(_logit(split.truth), np.asarray(split.labels))


def summary(
    logits: Array,
    labels: Array,
    users: NDArray[np.integer] | None = None,
    *,
    with_intervals: bool = True,
) -> dict[str, Any]:
    """Return the metrics by name, JSON-ready, and the ends of their intervals.

    Args:
        logits: (S,) scores before the sigmoid.
        labels: (S,) 0 or 1.
        users: (S,) number of each row's user, negative where there is none; adds per-user AUC.
        with_intervals: Whether to add `auc_low`, `auc_high` and so on; None where undefined.

    """
    result: dict[str, Any] = measure(logits, labels).to_dict()
    if users is not None:
        result |= user_auc(logits, labels, users).to_dict()
    if with_intervals:
        for name, interval in intervals(logits, labels, users).items():
            result[f"{name}_low"] = None if interval is None else interval.low
            result[f"{name}_high"] = None if interval is None else interval.high
    return result


def describe(predictions: Metrics) -> dict[str, Any]:
    """Return metrics with intervals, calibration curve and score histogram, JSON-ready."""
    logits, labels = predictions.arrays()
    scores = sigmoid(logits)
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    return {
        "metrics": summary(logits, labels),
        "intervals": {"level": LEVEL, "resamples": RESAMPLES},
        "calibration_bins": [asdict(b) for b in calibration_bins(scores, labels)],
        "histogram": {
            "edges": edges.tolist(),
            "negatives": np.histogram(scores[labels == 0], edges)[0].tolist(),
            "positives": np.histogram(scores[labels != 0], edges)[0].tolist(),
        },
    }


def _logit(probability: np.ndarray) -> Array:
    # Never 0 or 1, whose logits are infinite: float32 has no probability nearer to 1 than this.
    p = np.clip(probability.astype(np.float64), 2.0**-24, 1.0 - 2.0**-24)
    return (np.log(p) - np.log1p(-p)).astype(np.float32)
