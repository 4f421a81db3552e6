"""`dlrm eval`: how good a trained model is on a split."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from dlrm import terminal
from dlrm.commands.metric_columns import CLASSIFICATION, METRICS, REGRESSION, known, shown
from dlrm.data import describe as columns
from dlrm.data.coverage import Coverage, Shares, warnings_of
from dlrm.data.encoded import Encoded
from dlrm.data.features.features import Features
from dlrm.data.sources.frame import is_frame
from dlrm.data.sources.source import OnBadRow
from dlrm.data.store import MANIFEST_FILE, Dataset, Split
from dlrm.errors import ConfigError, DatasetError, unknown
from dlrm.metrics import LEVEL, RESAMPLES, MetricValues, RegressionValues
from dlrm.run import Run
from dlrm.schema import Schema
from dlrm.training.config import from_dict
from dlrm.training.ensemble import model_name
from dlrm.training.evaluate import optimum, predict_split, summary
from dlrm.training.load import load_model
from dlrm.training.run_data import raw_rows, split_of

MOST_COLUMNS = 10
"""Columns whose shares are shown."""
SHORT = {"gauc": "GAUC", "calibration": "calib."}
"""Names that fit above a narrow column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalResult:
    """How good a model is on a split."""

    run: Path
    model: str
    """Name of the model: `dlrm`, or `dlrm x 5` for an ensemble."""
    data: Path
    split: str
    labels: dict[str, dict[str, Any]]
    """Metrics of each label that was measured, with the ends of their intervals as `auc_low`,
    `auc_high`."""
    optimum: dict[str, Any] | None
    """The metrics of the truth, where it is known."""
    user: str | None
    """The column that names the user, for per-user AUC."""
    by: str | None
    """The column that makes the segments."""
    segments: list[dict[str, Any]]
    """The metrics of each: its name as `segment`, and all that `metrics` has."""
    only: str | None
    """The one metric that was asked for."""
    shares: list[Shares] = field(default_factory=list)
    """Shares of the values of each column that training did not see, and of the missing ones."""
    raw: bool = False
    """Whether raw rows were measured, whose columns are shown beside training's."""

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the first, or only, label."""
        return next(iter(self.labels.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        intervals = self._intervals
        return {
            "run": str(self.run),
            "model": self.model,
            "data": str(self.data),
            "split": self.split,
            "label": next(iter(self.labels)),
            "gauc": None,
            **self.metrics,
            **({"labels": self.labels} if len(self.labels) > 1 else {}),
            "interval_level": LEVEL if intervals else None,
            "interval_resamples": RESAMPLES if intervals else None,
            "interval_unit": ("user" if self.user else "row") if intervals else None,
            "user": self.user,
            "by": self.by,
            "segments": self.segments if self.by else None,
            "optimum": self.optimum,
            "columns": [column.to_dict() for column in self.shares],
            "warnings": warnings_of(self.shares),
        }

    def __rich__(self) -> RenderableType:
        rows = f"{self.split}: {self.metrics['samples']:,} rows"
        title = f"{self.run} ({self.model}) on {self.data}, {rows}"
        lines: list[RenderableType] = [Text(title)]
        for name, metrics in self.labels.items():
            if len(self.labels) > 1:
                lines.append(Text(f"\n{name}", "bold"))
            lines += [self._whole(metrics), *map(Text, self._about(metrics))]
        if self.by:
            lines.append(self._parts())
        if self.raw:
            lines.append(self._columns())
        lines += map(Text, warnings_of(self.shares))
        return Group(*lines, *map(Text, self._notes()))

    @property
    def _intervals(self) -> bool:
        return any(name.endswith("_low") for name in self.metrics)

    def _names(self, metrics: Mapping[str, Any], *without: str) -> list[str]:
        return [name for name in known(metrics, *without) if self.only in (None, name)]

    def _whole(self, metrics: dict[str, Any]) -> RenderableType:
        grid = terminal.table(None, "", "model")
        if self._intervals:
            grid.add_column(f"{LEVEL:.0%} interval", justify="right")
        optimum = self.optimum if metrics is self.metrics else None
        if optimum:
            grid.add_column("optimum", justify="right")
        for name in self._names(metrics):
            cells = [shown(metrics[name])]
            if self._intervals:
                low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
                cells.append("" if low is None else f"{low:.4f} to {high:.4f}")
            if optimum:
                cells.append(shown(optimum.get(name)))
            grid.add_row(METRICS[name], *cells)
        return grid

    def _parts(self) -> RenderableType:
        names = self._names(self.metrics, *(() if self.only else ("accuracy", "ece")))
        mean = "click_rate" if "click_rate" in self.metrics else "mean_label"
        heads = [
            "rows", mean.replace("_", " "), *(SHORT.get(name, METRICS[name]) for name in names)
        ]  # fmt: skip
        grid = terminal.table(None, f"{self.by}", *heads)
        for segment in self.segments:
            cells = [shown(segment[name]) for name in names]
            if self._intervals:
                ends = [_half_width(segment, name) for name in names]
                cells = [f"{cell}\n{end}" for cell, end in zip(cells, ends, strict=True)]
            rows = f"{segment['samples']:,}"
            grid.add_row(segment["segment"], rows, shown(segment[mean]), *cells)
        return grid

    def _columns(self) -> RenderableType:
        """Return the columns whose values differ most from training's."""
        heads = ("unseen", "in training", "missing", "in training")
        grid = terminal.table(None, "column", *heads)
        for column in self.shares[:MOST_COLUMNS]:
            pairs = (
                column.unseen, column.trained_unseen, column.missing, column.trained_missing
            )  # fmt: skip
            cells = ["-" if share is None else f"{share:.1%}" for share in pairs]
            grid.add_row(column.name, *cells)
        if len(self.shares) > MOST_COLUMNS:
            grid.add_row(f"... and {len(self.shares) - MOST_COLUMNS} more")
        return grid

    def _about(self, metrics: dict[str, Any]) -> list[str]:
        """Return what the table of a label does not say."""
        notes = []
        if "gauc_users" in metrics:
            notes.append(
                f"Per-user AUC: over the {metrics['gauc_users']:,} values of {self.user} that have "
                f"both labels, with {metrics['gauc_samples']:,} rows; left out are "
                f"{metrics['gauc_users_left_out']:,} values with one label, and with those of no "
                f"user {metrics['gauc_samples_left_out']:,} rows."
            )
        if "auc" not in metrics:
            why = RegressionValues(
                **{name: metrics[name] for name in ("r2", "calibration", "mean_label", "samples")}
            ).undefined()
            return [f"R² or calibration is undefined: {why}."] if why else []
        if why := MetricValues(
            **{name: metrics[name] for name in ("auc", "click_rate", "samples")}
        ).undefined():
            notes.append(f"AUC and normalized entropy are undefined: {why}.")
        noise = metrics["ece_noise"]
        if self.only in (None, "ece") and noise is not None:
            notes.append(f"ECE of scores that are exactly right, by luck: {noise:.4f}.")
        return notes

    def _notes(self) -> list[str]:
        """Return what the tables do not say."""
        notes = []
        if self._intervals:
            unit = "users" if self.user else "rows"
            notes.append(
                f"Intervals: {LEVEL:.0%}, by {RESAMPLES:,} resamples of the {unit}; they tell the "
                "luck of the rows, not that of the seed."
            )
            if self.by:
                notes.append("±: the longer side of the interval.")
        return notes


def _half_width(metrics: Mapping[str, Any], name: str) -> str:
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    if low is None or high is None:
        return ""
    return f"±{max(metrics[name] - low, high - metrics[name]):.4f}"


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
    choices = CLASSIFICATION if task == "classification" else REGRESSION
    if metric is not None and metric not in choices:
        raise unknown("metric", metric, choices)
    if user is not None and task == "regression":
        raise ConfigError("user adds the AUC within each user, which needs labels of 0 and 1")
    features = Features.load(opened.path)
    raw = data is not None and (is_frame(data) or not (Path(data) / MANIFEST_FILE).is_file())
    if raw:
        if split is not None:
            raise ConfigError(f"split is {split}, but of raw rows all are measured: leave it out")
        data = raw_rows(data, opened, features, bad_rows).path
    split = split or "test"
    dataset, rows = split_of(opened, data, split)
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
        schema: Schema of the run.
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
