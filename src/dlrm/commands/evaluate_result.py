"""What `dlrm eval` measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dlrm import terminal
from dlrm.commands.metric_columns import METRICS, known, shown
from dlrm.data.coverage import Shares, warnings_of
from dlrm.metrics import LEVEL, RESAMPLES, MetricValues, RegressionValues

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
