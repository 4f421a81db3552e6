"""`dlrm eval`: how good a trained model is on a split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from dlrm import terminal
from dlrm.data import segments as columns
from dlrm.data.store import Dataset
from dlrm.data.tabular.encoder import open_encoder
from dlrm.errors import DatasetError, RunError, unknown
from dlrm.metrics import LEVEL, RESAMPLES, MetricValues
from dlrm.run import Run
from dlrm.training.config import from_dict
from dlrm.training.ensemble import model_name
from dlrm.training.evaluate import optimum, predict_split, summary
from dlrm.training.load import load_model

METRICS = {
    "auc": "AUC",
    "gauc": "per-user AUC",
    "log_loss": "log loss",
    "normalized_entropy": "NE",
    "accuracy": "accuracy",
    "calibration": "calibration",
    "ece": "ECE",
}
SHORT = {"gauc": "GAUC", "calibration": "calib."}
"""Names that fit above a narrow column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalResult:
    """How good a model is on a split."""

    run: Path
    model: str
    """Its name: `dlrm`, or `dlrm x 5` for an ensemble."""
    data: Path
    split: str
    metrics: dict[str, Any]
    """By name, with the ends of their intervals as `auc_low`, `auc_high`."""
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

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        intervals = self._intervals
        return {
            "run": str(self.run),
            "model": self.model,
            "data": str(self.data),
            "split": self.split,
            "gauc": None,
            **self.metrics,
            "interval_level": LEVEL if intervals else None,
            "interval_resamples": RESAMPLES if intervals else None,
            "interval_unit": ("user" if self.user else "row") if intervals else None,
            "user": self.user,
            "by": self.by,
            "segments": self.segments if self.by else None,
            "optimum": self.optimum,
        }

    def __rich__(self) -> RenderableType:
        rows = f"{self.split}: {self.metrics['samples']:,} rows"
        title = f"{self.run} ({self.model}) on {self.data}, {rows}"
        lines: list[RenderableType] = [Text(title), self._whole()]
        if self.by:
            lines.append(self._parts())
        return Group(*lines, *map(Text, self._notes()))

    @property
    def _shown(self) -> list[str]:
        return [name for name in METRICS if name in self.metrics and self.only in (None, name)]

    @property
    def _intervals(self) -> bool:
        return "auc_low" in self.metrics

    def _whole(self) -> RenderableType:
        grid = terminal.table(None, "", "model")
        if self._intervals:
            grid.add_column(f"{LEVEL:.0%} interval", justify="right")
        if self.optimum:
            grid.add_column("optimum", justify="right")
        for name in self._shown:
            cells = [_number(self.metrics[name])]
            if self._intervals:
                low, high = self.metrics[f"{name}_low"], self.metrics[f"{name}_high"]
                cells.append("" if low is None else f"{low:.4f} to {high:.4f}")
            if self.optimum:
                cells.append(_number(self.optimum.get(name)))
            grid.add_row(METRICS[name], *cells)
        return grid

    def _parts(self) -> RenderableType:
        names = [name for name in self._shown if self.only or name not in ("accuracy", "ece")]
        heads = ["rows", "click rate", *(SHORT.get(name, METRICS[name]) for name in names)]
        grid = terminal.table(None, f"{self.by}", *heads)
        for each in self.segments:
            cells = [_number(each[name]) for name in names]
            if self._intervals:
                ends = [_half_width(each, name) for name in names]
                cells = [f"{cell}\n{end}" for cell, end in zip(cells, ends, strict=True)]
            rate = _number(each["click_rate"])
            grid.add_row(escape(each["segment"]), f"{each['samples']:,}", rate, *cells)
        return grid

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
        if self.user:
            m = self.metrics
            notes.append(
                f"Per-user AUC: over the {m['gauc_users']:,} values of {self.user} that have both "
                f"labels, with {m['gauc_samples']:,} rows; left out are "
                f"{m['gauc_users_left_out']:,} values with one label, and with those of no user "
                f"{m['gauc_samples_left_out']:,} rows."
            )
        if why := MetricValues(
            **{name: self.metrics[name] for name in ("auc", "click_rate", "samples")}
        ).undefined():
            notes.append(f"AUC and normalized entropy are undefined: {why}.")
        noise = self.metrics["ece_noise"]
        if self.only in (None, "ece") and noise is not None:
            notes.append(f"ECE of scores that are exactly right, by luck: {noise:.4f}.")
        return notes


def evaluate(
    run: Annotated[Path, tyro.conf.Positional],
    *,
    data: str | None = None,
    split: str = "test",
    by: str | None = None,
    segments: int = 10,
    user: str | None = None,
    metric: str | None = None,
    intervals: bool = True,
) -> EvalResult:
    """Measure the best checkpoint of a run on a split.

    Args:
        run: The run directory.
        data: A prepared dataset with the schema of the run; its own by default.
        split: train, validation or test.
        by: A column: measure each of its values too, or the quantiles of its numbers.
        segments: How many values of that column to list; the others are taken together.
        user: A column that names the user: adds the AUC within each user, and intervals draw users
            rather than rows.
        metric: Show this one only; an error where it is undefined.
        intervals: Add bootstrap intervals.

    Raises:
        RunError: The run has no model yet, or was trained on another schema.
        DatasetError: The dataset is damaged, its split has no rows, or `metric` is undefined.
        ConfigError: There is no such column or metric; lists the choices.

    """
    opened = Run.open(run)
    config = from_dict(opened.config)
    if metric is not None and metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    dataset = Dataset.open(Path(data if data is not None else opened.dataset["path"]))
    if difference := opened.schema.difference(dataset.schema):
        raise RunError(f"{run} was trained on another schema than {dataset.path}: {difference}")
    rows = dataset.split(split)
    if not len(rows):
        raise DatasetError(f"{dataset.path}: the split {split} has no rows")
    # Before the model is run, so that a column that does not exist costs no time.
    parts = None if by is None else columns.by_column(rows, open_encoder(run), by, segments)
    users = None if user is None else columns.users(rows, open_encoder(run), user)
    model = load_model(opened)
    predictions = predict_split(model, rows, config.eval.batch_size)
    logits, labels = predictions.arrays()
    metrics = summary(logits, labels, users, with_intervals=intervals)
    _require(metric, metrics, user)
    best = optimum(rows)
    return EvalResult(
        run=run,
        model=model_name(config),
        data=dataset.path,
        split=split,
        metrics=metrics,
        optimum=best.to_dict() if best else None,
        user=user,
        by=by,
        segments=[
            {
                "segment": name,
                **summary(
                    logits[mine],
                    labels[mine],
                    None if users is None else users[mine],
                    with_intervals=intervals,
                ),
            }
            for name, mine in _rows(parts)
        ],
        only=metric,
    )


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
    values = MetricValues(**{name: metrics[name] for name in ("auc", "click_rate", "samples")})
    values.require(metric)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _half_width(metrics: dict[str, Any], name: str) -> str:
    value, low, high = (metrics[key] for key in (name, f"{name}_low", f"{name}_high"))
    return "" if low is None else f"±{max(value - low, high - value):.4f}"
