"""What a trained model predicts, and how good that is."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import nn

from dlrm.batch import Batch
from dlrm.data.loader import Loader
from dlrm.data.store import Split
from dlrm.metrics import Array, Metrics, MetricValues, calibration_bins, measure, sigmoid

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


def predict_split(model: nn.Module, split: Split, batch_size: int) -> Metrics:
    """Return the model's logits and the labels of a split, in its order."""
    return predict(model, Loader(split, batch_size=batch_size).epoch())


def optimum(split: Split) -> MetricValues | None:
    """Return the metrics of the truth itself; None where the truth is not known.

    No model can be expected to do better on these rows.
    """
    if split.truth is None or len(split) == 0:
        return None
    return measure(_logit(split.truth), np.asarray(split.labels))


def describe(predictions: Metrics) -> dict[str, Any]:
    """Return metrics, calibration curve and score histogram, JSON-ready."""
    logits, labels = predictions.arrays()
    scores = sigmoid(logits)
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    return {
        "metrics": predictions.compute().to_dict(),
        "calibration_bins": [asdict(b) for b in calibration_bins(scores, labels)],
        "histogram": {
            "edges": edges.tolist(),
            "negatives": np.histogram(scores[labels == 0], edges)[0].tolist(),
            "positives": np.histogram(scores[labels != 0], edges)[0].tolist(),
        },
    }


def _logit(probability: np.ndarray) -> Array:
    p = probability.astype(np.float64)
    return (np.log(p) - np.log1p(-p)).astype(np.float32)
