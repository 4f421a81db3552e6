"""What a trained model predicts, and how good that is, label by label."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dlrm.batch import Batch
from dlrm.data.loader import Loader, joined
from dlrm.data.store import Dataset, Split
from dlrm.json_file import write_sealed
from dlrm.metrics import (
    LEVEL,
    RESAMPLES,
    Array,
    Metrics,
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
from dlrm.ops.choice import choices
from dlrm.parallel.world import ALONE, World
from dlrm.run import Run
from dlrm.schema import Schema, Task
from dlrm.training import ensemble
from dlrm.training.config import TrainConfig
from dlrm.training.device import Transfer, device_of

HELD_OUT = ("validation", "test")
"""Splits that a finished run is evaluated on, where they have rows."""
HISTOGRAM_BINS = 50

Evaluations = dict[str, dict[str, Any]]
"""By split: the name of the `model`, its `metrics`, those of the `members` of an ensemble, and
where known those of the `optimum`, the `baseline` and the `trees`; of several labels those of the
first, and those of each below `labels`."""


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
        values = [getattr(label, metric) for label in self.by_label.values()]
        return None if None in values else sum(values) / len(values)

    def to_dict(self) -> dict[str, Any]:
        """Return the first label's metrics by name, and those of several below `labels`."""
        return by_label({name: values.to_dict() for name, values in self.by_label.items()})

    def flat(self) -> dict[str, float | None]:
        """Return all metrics by name, of several labels `label/metric`."""
        if len(self.by_label) == 1:
            return self.first.to_dict()
        return {
            f"{name}/{metric}": value
            for name, values in self.by_label.items()
            for metric, value in values.to_dict().items()
        }


def by_label(values: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the values of the first label by name, and of several those of all below `labels`."""
    first = next(iter(values.values()))
    return first if len(values) == 1 else {**first, "labels": dict(values)}


def predict(model: nn.Module, batches: Iterable[Batch], predictions: Metrics) -> Metrics:
    """Add the model's logits and the labels of batches on the CPU to predictions, in their order.

    The model may be on any device, and is in evaluation mode meanwhile.

    Raises:
        IdError: An id is out of range; names the feature.

    """
    to_device = Transfer(model)
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            logits = model(to_device(batch))
            predictions.update(logits, batch.labels, batch.weights)
    model.train(was_training)
    return predictions


def predict_split(model: nn.Module, split: Split, batch_size: int, world: World = ALONE) -> Metrics:
    """Return the model's logits and the labels of a split, in its order.

    Several processes predict each its part of every batch, and all get all of them.
    """
    loader = Loader(
        split,
        batch_size=batch_size,
        part=(world.rank, world.size),
        pin=device_of(model).type == "cuda",
    )
    local = predict(model, loader.epoch(), _none_of(split))
    if world.size == 1:
        return local
    whole = _none_of(split)
    columns: list[Any] = []
    for parts in zip(*(part.arrays() for part in gathered(local, world)), strict=True):
        arrays = [np.empty(0, np.float32) if part is None else part for part in parts]
        some = any(part is not None for part in parts)
        columns.append(joined(arrays, len(split), batch_size) if some else None)
    whole.update(*columns)
    return whole


def _none_of(split: Split) -> Metrics:
    """Return predictions of no sample, for the labels of a split."""
    clicks = split.labels.dtype == np.uint8
    return Metrics(split.labels.shape[1], "classification" if clicks else "regression")


def gathered(predictions: Metrics, world: World) -> list[Metrics]:
    """Return the predictions of each process, by rank, to all of them."""
    logits, labels, weights = predictions.arrays()
    weighted = torch.empty(0) if weights is None else torch.from_numpy(weights)
    parts = zip(
        *(world.gather(tensor) for tensor in (torch.from_numpy(logits), torch.from_numpy(labels))),
        world.gather(weighted),
        strict=True,
    )
    processes = []
    for part_logits, part_labels, part_weights in parts:
        process = Metrics(predictions.num_labels, predictions.task)
        process.update(part_logits, part_labels, part_weights if len(part_weights) else None)
        processes.append(process)
    return processes


def measured(predictions: Metrics, schema: Schema) -> LabelValues:
    """Return the metrics of each label."""
    return LabelValues(dict(zip(schema.labels, predictions.compute(), strict=True)))


def optimum(split: Split) -> MetricValues | None:
    """Return the metrics of the truth itself; None where the truth is not known.

    No model can be expected to do better on these rows. The truth is of the first label.
    """
    if split.truth is None or len(split) == 0:
        return None
    return measure(_logit(split.truth), np.ascontiguousarray(split.labels[:, 0]), split.weights)


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


def describe(predictions: Metrics, schema: Schema) -> dict[str, dict[str, Any]]:
    """Return for each label metrics with intervals, JSON-ready, and what is drawn of predictions.

    Of clicks that is the calibration curve and a histogram of scores; of numbers the mean label by
    prediction and a histogram of residuals.
    """
    described = {}
    for place, name in enumerate(schema.labels):
        logits, labels, weights = predictions.label(place)
        drawn: dict[str, Any]
        if schema.task == "regression":
            bins = prediction_bins(logits, labels, weights=weights)
            drawn = {
                "prediction_bins": [asdict(one) for one in bins],
                "residuals": asdict(residuals(logits, labels, HISTOGRAM_BINS)),
            }
        else:
            scores, edges = sigmoid(logits), np.linspace(0.0, 1.0, HISTOGRAM_BINS + 1)
            bins = calibration_bins(scores, labels, weights=weights)
            drawn = {
                "calibration_bins": [asdict(one) for one in bins],
                "histogram": {
                    "edges": edges.tolist(),
                    "negatives": np.histogram(scores[labels == 0], edges)[0].tolist(),
                    "positives": np.histogram(scores[labels != 0], edges)[0].tolist(),
                },
            }
        described[name] = {
            "metrics": summary(logits, labels, weights=weights, task=schema.task),
            "intervals": {"level": LEVEL, "resamples": RESAMPLES},
            **drawn,
        }
    return described


def evaluate_run(
    config: TrainConfig,
    dataset: Dataset,
    run: Run,
    model: nn.Module,
    scored: Mapping[str, Metrics],
    world: World = ALONE,
    *,
    baseline: tuple[str, Evaluations] | None = None,
    trees: Mapping[str, Metrics] | None = None,
) -> Evaluations:
    """Write evaluation-SPLIT.json of a trained model for each held-out split that has rows.

    Beside the metrics it says what MLPs have multiplied by, see `dlrm.ops.ways`.

    Args:
        config: Config of the run.
        dataset: Whose splits are evaluated.
        run: Where the files go.
        model: The best model of the run.
        scored: What it has predicted, of splits for which that is known; they are not scored again.
        world: The processes of the run, of which the first measures and writes; others get nothing.
        baseline: Name of the model to compare with, and its own evaluations.
        trees: What LightGBM predicts of each split; None where it is not known.

    """
    schema, evaluations = dataset.schema, {}
    for name in HELD_OUT:
        split = dataset.split(name)
        if not len(split):
            continue
        predictions = scored.get(name)
        if predictions is None:
            predictions = predict_split(model, split, config.eval.batch_size, world)
        if run.silent:
            continue
        best = optimum(split)
        described = describe(predictions, schema)
        rivals = describe(trees[name], schema) if trees else {}
        for label, values in described.items():
            values["members"] = ensemble.scores(run, config, name, label)
            # What labels were drawn with is known of the first alone.
            known = best is not None and label == schema.labels[0]
            values["optimum"] = best.to_dict() if best and known else None
            values["baseline"] = None
            if baseline:
                metrics = ensemble.metrics_of(baseline[1][name], label)
                values["baseline"] = {"name": baseline[0], "metrics": metrics}
            if trees:
                values["trees"] = rivals[label]["metrics"]
        evaluations[name] = {
            "split": name,
            "model": ensemble.model_name(config),
            "products": choices.used(),
            **by_label(described),
        }
        write_sealed(run.path / f"evaluation-{name}.json", evaluations[name])
    return evaluations


def _logit(probability: np.ndarray) -> Array:
    # Never 0 or 1, whose logits are infinite: float32 has no probability nearer to 1 than this.
    p = np.clip(probability.astype(np.float64), 2.0**-24, 1.0 - 2.0**-24)
    return (np.log(p) - np.log1p(-p)).astype(np.float32)
