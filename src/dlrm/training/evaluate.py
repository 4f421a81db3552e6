"""What a trained model predicts, and how good that is, label by label."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
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
    MetricValues,
    Values,
    calibration_bins,
    intervals,
    measure,
    measure_for,
    prediction_bins,
    residuals,
    sigmoid,
    user_auc,
)
from dlrm.parallel.world import World
from dlrm.schema import Schema, Task
from dlrm.training.predictions import Predictions

HISTOGRAM_BINS = 50


@dataclass(frozen=True, slots=True)
class LabelValues:
    """The metrics of predictions, for each label."""

    by_label: Mapping[str, Values]
    """Name of a label -> its metrics, in the order of the schema."""

    @property
    def first(self) -> Values:
        """The metrics of the first, or only, label."""
        return next(iter(self.by_label.values()))

    def mean(self, metric: str) -> float | None:
        """Return the mean of a metric over the labels; None where it is undefined for one."""
        values = [getattr(each, metric) for each in self.by_label.values()]
        return None if None in values else sum(values) / len(values)

    def to_dict(self) -> dict[str, Any]:
        """Return the first label's metrics by name, and those of several below `labels`."""
        return by_label({name: each.to_dict() for name, each in self.by_label.items()})

    def flat(self) -> dict[str, float | None]:
        """Return all metrics by name, of several labels `label/metric`."""
        if len(self.by_label) == 1:
            return self.first.to_dict()
        return {
            f"{name}/{metric}": value
            for name, each in self.by_label.items()
            for metric, value in each.to_dict().items()
        }


def by_label(values: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the first label's values, and those of all labels below `labels` if there are several.

    Args:
        values: Name of a label -> its values by name.

    """
    first = next(iter(values.values()))
    return first if len(values) == 1 else {**first, "labels": dict(values)}


def device_of(model: nn.Module) -> torch.device:
    """Return where the parameters of a model are."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def predict(
    model: nn.Module, batches: Iterable[Batch], device: torch.device | None = None
) -> Predictions:
    """Return the model's logits and the labels, in the order of the batches.

    Args:
        model: In evaluation mode meanwhile.
        batches: On the CPU.
        device: Where the model is; None asks its parameters.

    """
    device = device_of(model) if device is None else device
    predictions = None
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            predictions = predictions or Predictions(batch.labels.shape[1])
            predictions.update(model(batch.to(device, non_blocking=True)), batch)
    model.train(was_training)
    return predictions or Predictions()


def predict_split(
    model: nn.Module,
    split: Split,
    batch_size: int,
    world: World | None = None,
    device: torch.device | None = None,
) -> Predictions:
    """Return the model's logits and the labels of a split, in its order.

    Args:
        model: Of one process, or of these.
        split: What to predict.
        batch_size: Samples a batch.
        world: The processes that predict, each its part of every batch; all get all of them.
        device: Where the model is; None asks its parameters.

    """
    world = world or World.alone()
    loader = Loader(split, batch_size=batch_size, part=(world.rank, world.size))
    own = predict(model, loader.epoch(), device)
    if world.size == 1:
        return own
    parts = ([part.numpy() for part in world.gather(tensor)] for tensor in own.tensors())
    # Weights are none, or as many as samples.
    whole = (joined(part, len(split) if any(map(len, part)) else 0, batch_size) for part in parts)
    predictions = Predictions(own.num_labels)
    predictions.add(*map(torch.from_numpy, whole))
    return predictions


def measured(predictions: Predictions, schema: Schema) -> LabelValues:
    """Return the metrics of each label."""
    return LabelValues(dict(_each_label(predictions, schema, measure_for(schema.task))))


def _each_label(
    predictions: Predictions, schema: Schema, work: Callable[[Array, Array, Array | None], Any]
) -> Iterable[tuple[str, Any]]:
    logits, labels, weights = predictions.arrays()
    for k, name in enumerate(schema.labels):
        yield name, work(logits[:, k].copy(), labels[:, k].copy(), weights)


def optimum(split: Split) -> MetricValues | None:
    """Return the metrics of the truth itself; None where the truth is not known.

    No model can be expected to do better on these rows.
    """
    if split.truth is None or len(split) == 0:
        return None
    return measure(_logit(split.truth), np.asarray(split.labels).reshape(len(split), -1)[:, 0])


def summary(
    logits: Array,
    labels: Array,
    users: NDArray[np.integer] | None = None,
    *,
    weights: Array | None = None,
    task: Task = "classification",
    with_intervals: bool = True,
) -> dict[str, Any]:
    """Return the metrics by name, JSON-ready, and the ends of their intervals.

    Args:
        logits: (S,) scores before the sigmoid; predictions in a regression.
        labels: (S,) 0 or 1; any numbers in a regression.
        users: (S,) number of each row's user, negative where there is none; adds per-user AUC to
            those of clicks.
        weights: (S,) how often each row counts; None for once each.
        task: What labels are.
        with_intervals: Whether to add `auc_low`, `auc_high` and so on; None where undefined.

    """
    result: dict[str, Any] = measure_for(task)(logits, labels, weights).to_dict()
    if users is not None and task == "classification":
        result |= user_auc(logits, labels, users, weights).to_dict()
    if with_intervals:
        for name, interval in intervals(logits, labels, users, weights, task).items():
            result[f"{name}_low"] = None if interval is None else interval.low
            result[f"{name}_high"] = None if interval is None else interval.high
    return result


def describe(predictions: Predictions, schema: Schema) -> dict[str, Any]:
    """Return metrics with intervals, JSON-ready, and what is drawn of the predictions.

    Of clicks that is the calibration curve and a histogram of scores; of numbers the mean label by
    prediction and a histogram of residuals. Of several labels those of the first, and all of them
    below `labels`.
    """
    work = _described_numbers if schema.task == "regression" else _described_clicks
    return by_label(dict(_each_label(predictions, schema, work)))


def _described_clicks(logits: Array, labels: Array, weights: Array | None) -> dict[str, Any]:
    scores = sigmoid(logits)
    edges = np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
    return {
        "metrics": summary(logits, labels, weights=weights),
        "intervals": {"level": LEVEL, "resamples": RESAMPLES},
        "calibration_bins": [asdict(b) for b in calibration_bins(scores, labels, weights=weights)],
        "histogram": {
            "edges": edges.tolist(),
            "negatives": np.histogram(scores[labels == 0], edges)[0].tolist(),
            "positives": np.histogram(scores[labels != 0], edges)[0].tolist(),
        },
    }


def _described_numbers(predicted: Array, labels: Array, weights: Array | None) -> dict[str, Any]:
    return {
        "metrics": summary(predicted, labels, weights=weights, task="regression"),
        "intervals": {"level": LEVEL, "resamples": RESAMPLES},
        "prediction_bins": [asdict(b) for b in prediction_bins(predicted, labels, weights=weights)],
        "residuals": asdict(residuals(predicted, labels, HISTOGRAM_BINS)),
    }


def _logit(probability: np.ndarray) -> Array:
    # Never 0 or 1, whose logits are infinite: float32 has no probability nearer to 1 than this.
    p = np.clip(probability.astype(np.float64), 2.0**-24, 1.0 - 2.0**-24)
    return (np.log(p) - np.log1p(-p)).astype(np.float32)
