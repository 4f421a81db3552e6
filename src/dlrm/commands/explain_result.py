"""What `dlrm explain` measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dlrm import terminal
from dlrm.commands.metric_columns import METRICS
from dlrm.training.importance import Importance

SHOWN = 50
"""Columns that a table lists."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainResult:
    """Which columns matter."""

    run: Path
    model: str
    """Name of the model: `dlrm`, or `dlrm x 5` for an ensemble."""
    data: str
    split: str | None
    """Split of a prepared dataset; None for raw rows."""
    measured: Importance | None
    """Over many rows; None where single ones were asked for."""
    rows: list[dict[str, Any]]
    """Single rows: the number of each as `row`, and below `labels` its effects, see
    `dlrm.training.importance.row_effects`."""

    def to_dict(self) -> dict[str, Any]:
        """Return the results JSON-ready."""
        about = {"run": str(self.run), "model": self.model, "data": self.data, "split": self.split}
        return about | (self.measured.to_dict() if self.measured else {"explained": self.rows})

    def __rich__(self) -> RenderableType:
        where = self.data if self.split is None else f"{self.data}, {self.split} rows"
        lines: list[RenderableType] = [Text(f"{self.run} ({self.model}) on {where}")]
        if self.measured:
            several = len(self.measured.labels) > 1
            for name, columns in self.measured.labels.items():
                lines.append(_importance(name if several else None, columns))
            lines.append(
                "By how much each metric is worse where a column's values are exchanged among "
                f"{self.measured.rows:,} rows."
            )
            listed = len(next(iter(self.measured.labels.values())))
            if listed > SHOWN:
                lines.append(f"{listed - SHOWN:,} columns that matter less: see --json")
        for row in self.rows:
            for name, effects in row["labels"].items():
                label = f", {name}" if len(row["labels"]) > 1 else ""
                title = f"row {row['row']}{label}: score {effects['score']:.4f}"
                lines.append(_effects(title, effects["columns"]))
        if self.rows:
            lines.append(
                "By how much the score lies above its mean with the values of other rows; 90% of "
                "the differences lie between the two ends."
            )
        return Group(*lines)


def _importance(label: str | None, columns: Sequence[Mapping[str, Any]]) -> Table:
    metrics = [name for name in METRICS if columns and name in columns[0]]
    heads = [head for name in metrics for head in (METRICS[name], "95% interval")]
    grid = terminal.table(label, "column", *heads)
    for values in columns[:SHOWN]:
        cells = [cell for name in metrics for cell in _cells(values, name, f"{name}_")]
        grid.add_row(str(values["column"]), *cells)
    return grid


def _effects(title: str, columns: Sequence[Mapping[str, Any]]) -> Table:
    grid = terminal.table(title, "column", "value", "effect", "90% between")
    for values in columns[:SHOWN]:
        value = "-" if values["value"] is None else str(values["value"])
        grid.add_row(str(values["column"]), value, *_cells(values, "effect", ""))
    return grid


def _cells(values: Mapping[str, Any], name: str, prefix: str) -> tuple[str, str]:
    """Return a change and its ends as tables show them."""
    if values[name] is None:
        return "-", ""
    ends = f"{values[f'{prefix}low']:+.4f} to {values[f'{prefix}high']:+.4f}"
    return f"{values[name]:+.4f}", ends
