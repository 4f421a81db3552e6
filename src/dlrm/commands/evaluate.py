"""`dlrm eval`: how good a trained model is on a split."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from dlrm.commands.evaluate_result import EvalResult
from dlrm.commands.metric_columns import CLASSIFICATION, REGRESSION
from dlrm.data import describe as columns
from dlrm.data.coverage import Coverage, Shares
from dlrm.data.encoded import Encoded
from dlrm.data.features.features import Features
from dlrm.data.fitting import Known
from dlrm.data.resolve import resolve
from dlrm.data.sources.frame import is_frame
from dlrm.data.sources.source import OnBadRow
from dlrm.data.store import MANIFEST_FILE, Dataset, Split
from dlrm.errors import ConfigError, DatasetError, RunError, unknown
from dlrm.metrics import MetricValues
from dlrm.run import Run
from dlrm.schema import Schema
from dlrm.training.config import from_dict
from dlrm.training.ensemble import model_name
from dlrm.training.evaluate import optimum, predict_split, summary
from dlrm.training.load import load_model


def evaluate(
    run: Annotated[Path | str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    *,
    data: Annotated[Any, tyro.conf.arg(constructor=str, help_behavior_hint="")] = None,
    split: str | None = None,
    bad_rows: OnBadRow = "error",
    by: str | None = None,
    segments: int = 10,
    user: str | None = None,
    label: str | None = None,
    metric: str | None = None,
    intervals: bool = True,
) -> EvalResult:
    """Measure the best checkpoint of a run on a split.

    Args:
        run: The run directory.
        data: Raw rows with labels, as the run was trained on, such as a new day: files, or in
            Python a frame; or a prepared dataset with the schema of the run. Its own by default.
        split: train, validation or test, the default; of raw rows all are measured.
        bad_rows: Stop at a raw row that is not what it should be, or leave it out.
        by: A column: measure each of its values too, or the quantiles of its numbers.
        segments: How many values of that column to list; the others are taken together.
        user: A column that names the user: adds the AUC within each user, and intervals draw users
            rather than rows.
        label: Of several labels measure this one only; needed with `by` and `user`.
        metric: Show this one only; an error where it is undefined.
        intervals: Add bootstrap intervals.

    Raises:
        RunError: The run has no model yet, or was trained on another schema.
        DatasetError: The dataset is damaged, its split has no rows, or `metric` is undefined.
        ConfigError: There is no such column, label or metric; lists the choices.

    """
    opened = Run.open(run)
    config = from_dict(opened.config)
    task = opened.schema.task
    known = CLASSIFICATION if task == "classification" else REGRESSION
    if metric is not None and metric not in known:
        raise unknown("metric", metric, known)
    if user is not None and task == "regression":
        raise ConfigError("user adds the AUC within each user, which needs labels of 0 and 1")
    features = Features.load(opened.path)
    raw = data is not None and (is_frame(data) or not (Path(data) / MANIFEST_FILE).is_file())
    if raw:
        if split is not None:
            raise ConfigError(f"split is {split}, but of raw rows all are measured: leave it out")
        dataset = whole(data, opened, features, bad_rows)
    else:
        dataset = Dataset.open(Path(data if data is not None else opened.dataset["path"]))
    split = split or "test"
    if difference := opened.schema.difference(dataset.schema):
        raise RunError(f"{run} was trained on another schema than {dataset.path}: {difference}")
    rows = dataset.split(split)
    if not len(rows):
        raise DatasetError(f"{dataset.path}: the split {split} has no rows")
    measured = _labels(opened.schema, label, by or user)
    # Before the model is run, so that a column that does not exist costs no time.
    parts = None if by is None else columns.by_column(rows, features, by, segments)
    users = None if user is None else columns.users(rows, features, user)
    model = load_model(opened)
    logits, labels, weights = predict_split(model, rows, config.eval.batch_size).arrays()

    def summed(place: int, mine: NDArray[np.intp] | slice) -> dict[str, Any]:
        """Return the metrics of a label on some rows."""
        return summary(
            logits[mine, place],
            labels[mine, place],
            None if users is None else users[mine],
            weights=None if weights is None else weights[mine],
            task=task,
            with_intervals=intervals,
        )

    places = {name: opened.schema.labels.index(name) for name in measured}
    metrics = {name: summed(place, slice(None)) for name, place in places.items()}
    for values in metrics.values():
        _require(metric, values, user)
    first = places[measured[0]]
    best = optimum(rows) if first == 0 else None
    return EvalResult(
        run=opened.path,
        model=model_name(config),
        data=dataset.path,
        split=split,
        labels=metrics,
        optimum=best.to_dict() if best else None,
        user=user,
        by=by,
        segments=[{"segment": name, **summed(first, mine)} for name, mine in _rows(parts)],
        only=metric,
        shares=_shares(opened, features, dataset, rows, raw=raw),
        raw=raw,
    )


def whole(data: Any, run: Run, features: Features, bad_rows: OnBadRow) -> Dataset:
    """Return raw rows as the features of a run encode them, all of them in the split `test`."""
    config = replace(
        from_dict(run.config).prepare,
        split="chronological",
        time=None,
        group=None,
        fractions=(0.0, 0.0, 1.0),
        schema=None,
        bad_rows=bad_rows,
    )
    return resolve(data, config, known=Known(features=features))


def _shares(
    run: Run, features: Features, dataset: Dataset, rows: Split, *, raw: bool
) -> list[Shares]:
    """Return the shares of unseen and missing values of the rows, beside training's."""
    trained = run.dataset.get("features", [])
    coverage = Coverage(features, trained)
    coverage.add(Encoded(rows.dense, rows.ids, lists=rows.lists))
    shares = coverage.shares()
    if not raw:
        return shares
    missing = {values["name"]: values["missing_rate"] for values in dataset.summary()["features"]}
    return sorted(
        (replace(column, missing=missing.get(column.name)) for column in shares),
        key=lambda column: -column.excess,
    )


def _labels(schema: Schema, label: str | None, column: str | None) -> tuple[str, ...]:
    """Return the labels that are measured.

    Args:
        schema: Of the run.
        label: The one that was asked for; None for all.
        column: That divides the rows, or names users; None where there is none.

    """
    if label is not None and label not in schema.labels:
        raise unknown("label", label, schema.labels)
    if label is not None or len(schema.labels) == 1:
        return (label or schema.labels[0],)
    if column is not None:
        choices = ", ".join(schema.labels)
        raise ConfigError(f"the run has several labels: say which with --label: {choices}")
    return schema.labels


def _rows(parts: columns.Segments | None) -> list[tuple[str, NDArray[np.intp]]]:
    """Return name and rows of each segment."""
    if parts is None:
        return []
    order = np.argsort(parts.numbers, kind="stable")
    ends = np.cumsum(np.bincount(parts.numbers, minlength=len(parts.names)))
    return list(zip(parts.names, np.split(order, ends[:-1]), strict=True))


def _require(metric: str | None, metrics: dict[str, Any], user: str | None) -> None:
    """Raise a DatasetError unless the metric that was asked for is defined."""
    if metric is None or metrics.get(metric) is not None:
        return
    if metric == "gauc" and user is None:
        raise DatasetError("gauc needs to know the users: name their column with --user")
    if metric == "gauc":
        raise DatasetError(f"gauc is undefined: no value of {user} has rows of both labels")
    if "auc" not in metrics:
        raise DatasetError(f"{metric} is undefined: all labels are equal")
    values = MetricValues(**{name: metrics[name] for name in ("auc", "click_rate", "samples")})
    values.require(metric)
